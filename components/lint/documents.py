"""YAML and JSON documents with the line of every value, from files, folders and standard input."""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.classifier.errors import UsageError

STANDARD_INPUT = "-"
_SUFFIXES = {".yaml", ".yml", ".json"}
_MAX_BYTES = 20 * 1024 * 1024
_SKIPPED_FOLDERS = {"node_modules", "__pycache__"}
_CLUSTER_SCHEMAS = re.compile(r"^kind: *CustomResourceDefinition\b", re.MULTILINE)  # large, and no rule reads them
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)

Keys = tuple[str | int, ...]


class Place(NamedTuple):
    """A value inside a document."""

    document: "Document"
    keys: Keys


@dataclass(frozen=True, eq=False)
class Document:
    """One document of a file. `first_line` counts from 0; `keys` lead from the file's own document to this one, for items of a List."""

    file: str
    first_line: int
    node: yaml.Node
    value: Any
    keys: Keys = ()

    def place(self, *keys: str | int) -> Place:
        """A value below these keys."""
        return Place(self, keys)

    def nodes(self, keys: Keys) -> tuple[yaml.Node, yaml.Node]:
        """The key and the value there; where the keys lead too far, what is nearest above. An item of a list is its own key."""
        key = value = self.node
        for step in keys:
            if isinstance(value, yaml.MappingNode):
                pairs = [pair for pair in value.value if pair[0].value == step]
                if not pairs:
                    break
                key, value = pairs[-1]
            elif isinstance(value, yaml.SequenceNode) and isinstance(step, int) and step < len(value.value):
                key = value = value.value[step]
            else:
                break
        return key, value

    def position(self, keys: Keys) -> tuple[int, int]:
        """Line and column of a value's key in the file, both from 1."""
        mark = self.nodes(keys)[0].start_mark
        return self.first_line + mark.line + 1, mark.column + 1

    def path(self, keys: Keys) -> str:
        """The JSONPath of a value, from the file's own document."""
        return "$" + "".join(_step(key) for key in (*self.keys, *keys))


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        return f".{key}"
    quoted = key.replace("\\", "\\\\").replace("'", "\\'")
    return f"['{quoted}']"


@dataclass(frozen=True)
class Unreadable:
    """A document that could not be read: its place, both from 1, and why. `template`: a tool such as Helm fills it in first."""

    file: str
    line: int
    column: int
    reason: str
    template: bool


@dataclass
class Source:
    """One file: its text, its documents, and what of it could not be read."""

    file: str
    text: str
    documents: list[Document] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes unknown tags for what they stand on, and dates for text, as Kubernetes does."""

    def any_tag(self, node: yaml.Node) -> Any:
        """A value without its tag."""
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_scalar(node)


_Loader.add_constructor(None, _Loader.any_tag)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.any_tag)
_Loader.add_constructor("tag:yaml.org,2002:binary", _Loader.any_tag)


def find_files(paths: Iterable[str]) -> list[str]:
    """The files to read: each that is named, and in folders all *.yaml, *.yml and *.json, without hidden folders.

    Raises UsageError when a path does not exist.
    """
    found: dict[str, None] = {}
    for path in paths:
        if path == STANDARD_INPUT or Path(path).is_file():
            found[path] = None
        elif Path(path).is_dir():
            found.update(dict.fromkeys(_files_below(Path(path))))
        else:
            raise UsageError(f"{path} does not exist; name a file, a folder, or - for standard input")
    return list(found)


def _files_below(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith(".") and path.name not in _SKIPPED_FOLDERS and not path.is_symlink():
                yield from _files_below(path)
        elif path.suffix.lower() in _SUFFIXES and path.is_file():
            yield str(path)


def read_source(file: str) -> Source:
    """Read one file, or standard input for "-". Raises UsageError when it cannot be opened."""
    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file} ({error.strerror}); name a file that can be read") from error
    return parse_source("standard input" if file == STANDARD_INPUT else file, content)


def parse_source(file: str, content: bytes) -> Source:
    """Read the documents of a file; one that is damaged does not hide the others."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("utf-16")
        except UnicodeDecodeError:
            return Source(file, "", unreadable=[Unreadable(file, 1, 1, "not text in UTF-8", False)])
    source = Source(file, text)
    if len(content) > _MAX_BYTES:
        source.unreadable.append(Unreadable(file, 1, 1, f"larger than {_MAX_BYTES // 1024**2} MiB", False))
    elif not file.endswith(".json") or '"apiVersion"' in text or '"pipelineInfo"' in text:
        _read_documents(source)
    return source


def _read_documents(source: Source) -> None:
    """A line that begins with `---` always separates documents in YAML, so each can be read by itself."""
    text = source.text
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text) if match.start())]
    ends = [*starts[1:], len(text)]
    line = 0
    for start, end in zip(starts, ends, strict=True):
        chunk = text[start:end]
        if not _CLUSTER_SCHEMAS.search(chunk):
            _read_document(source, chunk, line)
        line += chunk.count("\n")


def _read_document(source: Source, chunk: str, line: int) -> None:
    loader = _Loader(chunk)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = (line + mark.line + 1, mark.column + 1) if mark else (line + 1, 1)
        source.unreadable.append(
            Unreadable(source.file, *where, " ".join(str(error.problem or error.context).split()), "{{" in source.text)
        )
    except (yaml.YAMLError, ValueError, TypeError) as error:  # such as a control character, or 0x_
        source.unreadable.append(Unreadable(source.file, line + 1, 1, " ".join(str(error).split()), "{{" in source.text))
    except RecursionError:
        source.unreadable.append(Unreadable(source.file, line + 1, 1, "nested too deep", False))
    else:
        if isinstance(value, dict):
            source.documents += _with_items(Document(source.file, line, node, value))
    finally:
        loader.dispose()


def _with_items(document: Document) -> Iterator[Document]:
    """The document, or the items of a Kubernetes List."""
    items = document.value.get("items")
    if str(document.value.get("kind", "")).endswith("List") and isinstance(items, list):
        for number, item in enumerate(items):
            keys = ("items", number)
            yield Document(document.file, document.first_line, document.nodes(keys)[1], item, keys)
    else:
        yield document
