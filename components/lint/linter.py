"""Reads files, applies every rule, and leaves out what the user chose to ignore."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from components.classifier.errors import UsageError, near
from components.lint import container_rules, flow_rules, graph_rules, service_rules, step_rules
from components.lint.documents import Document, Source, Unreadable, find_files, parse_source, read_source
from components.lint.manifest import Manifest, Project
from components.lint.pipeline import Pipeline
from components.lint.registry import REGISTERED, Hit, Level, Rule, Subject
from components.lint.values import mapping, sequence, text

MODULES = {  # the module's name -> what its rules are about
    flow_rules.__name__: "Kubeflow pipelines: values, branches and loops",
    step_rules.__name__: "Kubeflow pipelines: steps",
    service_rules.__name__: "KServe services",
    graph_rules.__name__: "KServe inference graphs",
    container_rules.__name__: "Containers and images",
}
_IGNORE = re.compile(r"#\s*penstock:\s*ignore(?P<file>-file)?(?:\[(?P<rules>[^\]]*)\])?")
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


@dataclass(frozen=True)
class Finding:
    """A rule that holds at one place: line and column from 1, the JSONPath, and what was seen there."""

    rule: Rule
    file: str
    line: int
    column: int
    path: str
    seen: str
    hit: Hit

    @property
    def fixable(self) -> bool:
        """Whether `--fix` can mend it."""
        return self.hit.replacement is not None


@dataclass
class Report:
    """What was found, in the order of files and lines; what could not be read; how many files and documents were."""

    findings: list[Finding] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    pipelines: int = 0
    manifests: int = 0

    @property
    def failed(self) -> bool:
        """Whether anything is worse than a note, or was damaged."""
        return any(it.rule.level != Level.NOTE for it in self.findings) or any(not it.template for it in self.unreadable)


def all_rules() -> dict[str, Rule]:
    """Every rule by its id: pipelines first, then services, then containers."""
    order = list(MODULES)
    return dict(sorted(REGISTERED.items(), key=lambda it: order.index(it[1].check.__module__)))


def lint(paths: Iterable[str], ignore: Iterable[str] = (), level: Level = Level.NOTE) -> Report:
    """Report the traps in files, folders and standard input ("-"). `level`: the least that is reported.

    Raises UsageError when a path does not exist or cannot be opened, or a rule to ignore is unknown.
    """
    return check([read_source(file) for file in find_files(paths)], ignore, level)


def check(sources: list[Source], ignore: Iterable[str] = (), level: Level = Level.NOTE) -> Report:
    """Report the traps in sources that were read. Raises UsageError when a rule to ignore is unknown."""
    ignored = frozenset(ignore)
    for name in ignored - all_rules().keys():
        raise UsageError(f"no rule is called {name!r}{near(name, all_rules())}; `penstock lint --rules` lists them")
    order = list(Level)
    ignored |= {it.id for it in all_rules().values() if order.index(it.level) > order.index(level)}
    report = Report(sources=sources, unreadable=[it for source in sources for it in source.unreadable])
    patches, project = _kustomizations(sources)
    for source in sources:
        found = [_finding(rule, hit) for subject in _subjects(source, patches, project, report) for rule, hit in _hits(subject, ignored)]
        report.findings += sorted(_without_ignored(source, found), key=lambda it: (it.line, it.column, it.rule.id))
    return report


def _hits(subject: Subject, ignored: frozenset[str]) -> Iterator[tuple[Rule, Hit]]:
    """What all rules find in one pipeline or manifest."""
    for it in REGISTERED.values():
        if it.id not in ignored and isinstance(subject, it.subjects):
            for hit in it.check(subject):
                yield it, hit


def _finding(rule: Rule, hit: Hit) -> Finding:
    document, keys = hit.place
    return Finding(rule, document.file, *document.position(keys), document.path(keys), hit.seen, hit)


def _subjects(source: Source, patches: set[Path], project: Project, report: Report) -> Iterator[Subject]:
    """The pipelines and manifests of one file. Manifests are put into the project by `_kustomizations`."""
    for index, document in enumerate(source.documents):
        for pipeline in _pipelines(document, source.documents[index + 1 : index + 2]):
            report.pipelines += 1
            yield pipeline
    named = source.file != "standard input"
    if "patch" in Path(source.file).name.lower() or (named and Path(source.file).resolve() in patches):
        return  # parts of objects
    for manifest in project.manifests:
        if manifest.document in source.documents:
            report.manifests += 1
            yield manifest


def _pipelines(document: Document, following: list[Document]) -> Iterator[Pipeline]:
    """A pipeline as kfp compiles it, inside of a PipelineVersion, or inside of a job's JSON."""
    value = document.value
    if "pipelineInfo" in mapping(value) and "root" in value:
        platform = next((it for it in following if "platforms" in mapping(it.value)), None)
        yield Pipeline(document, (), platform)
    elif mapping(value, "spec", "pipelineSpec", "root"):
        yield Pipeline(document, ("spec", "pipelineSpec"), document, ("spec", "platformSpec"))
    elif mapping(value, "pipelineSpec", "root"):
        yield Pipeline(document, ("pipelineSpec",))


def _kustomizations(sources: list[Source]) -> tuple[set[Path], Project]:
    """The files that kustomizations apply as patches, and all manifests, with the images whose tag is set there."""
    project, patches = Project(), set()
    named = {Path(source.file).resolve(): source.documents for source in sources if source.file != "standard input"}
    for folder in {path.parent for path in named}:
        for beside in (folder / name for name in _KUSTOMIZATIONS):
            if beside not in named and beside.is_file():
                named[beside] = parse_source(str(beside), beside.read_bytes()).documents
    for path, documents in named.items():
        for value in (document.value for document in documents if path.name in _KUSTOMIZATIONS):
            entries = [*sequence(value, "patchesStrategicMerge"), *sequence(value, "patches"), *sequence(value, "patchesJson6902")]
            files = [it if isinstance(it, str) else text(it, "path") for it in entries]
            patches |= {(path.parent / it).resolve() for it in files if it and "\n" not in it}
            project.images |= {text(it, "name") for it in sequence(value, "images") if text(it, "newTag") or text(it, "digest")}
    for document in (document for source in sources for document in source.documents):
        value = mapping(document.value)
        kind, version = text(value, "kind"), text(value, "apiVersion")
        if kind and version and not version.startswith("kustomize.config.k8s.io") and not mapping(value, "spec", "pipelineSpec", "root"):
            project.manifests.append(Manifest(document, project))
    return patches, project


def _without_ignored(source: Source, findings: list[Finding]) -> Iterator[Finding]:
    lines = source.text.split("\n") if "penstock" in source.text else []
    comments = [(number, match) for number, line in enumerate(lines, 1) for match in _IGNORE.finditer(line)]
    whole_file = [match for _, match in comments if match["file"]]
    at_line: dict[int, list[re.Match[str]]] = {}
    for number, match in comments:
        if not match["file"]:
            while lines[number - 1].lstrip().startswith("#") and number < len(lines):  # alone on its line: it applies to the next line
                number += 1
            at_line.setdefault(number, []).append(match)
    for finding in findings:
        chosen = [*whole_file, *at_line.get(finding.line, []), *_in_component(finding)]
        if not any(_names(match, finding.rule.id) for match in chosen):
            yield finding


def _names(match: re.Match[str], rule: str) -> bool:
    return match["rules"] is None or rule in {it.strip() for it in match["rules"].split(",")}


def _in_component(finding: Finding) -> list[re.Match[str]]:
    """Comments in the source of the Python component that a finding is about: compiling a pipeline keeps these alone."""
    document, keys = finding.hit.place
    for pipeline in _pipelines(document, []):
        inside = keys[len(pipeline.spec_keys) :]
        executor = ""
        if inside[:2] == ("deploymentSpec", "executors") and len(inside) > 2:
            executor = str(inside[2])
        elif "tasks" in inside:
            at = inside.index("tasks") + 1
            executor = next((it.executor for it in pipeline.tasks if it.place.keys == keys[: len(pipeline.spec_keys) + at + 1]), "")
        return list(_IGNORE.finditer(pipeline.source(executor))) if executor else []
    return []


def fix(report: Report) -> dict[str, str]:
    """Put in the replacements that findings carry: the new text of each file that changes.

    A value is replaced only where it stands on one line as it was read; standard input is left alone.
    """
    changed = {}
    for source in report.sources:
        found = [it for it in report.findings if it.file == source.file and it.fixable and source.file != "standard input"]
        lines = source.text.split("\n")
        for finding in sorted(found, key=lambda it: (it.line, it.column), reverse=True):
            document, keys = finding.hit.place
            node = document.nodes(keys)[1]
            start, end, number = node.start_mark, node.end_mark, document.first_line + node.start_mark.line
            old = getattr(node, "value", "")
            if start.line == end.line and number < len(lines) and old in lines[number][start.column : end.column]:
                style = str(getattr(node, "style", None) or "")
                quote = '"' if finding.rule.id == "text-expected" else style if style in ("'", '"') else ""
                line = lines[number]
                lines[number] = line[: start.column] + f"{quote}{finding.hit.replacement}{quote}" + line[end.column :]
        if (new := "\n".join(lines)) != source.text:
            changed[source.file] = new
    return changed
