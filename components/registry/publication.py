"""How a version comes into a store: files first, in any order and as often as it takes, and the manifest last, once.

The model card says what a version is for and its numbers, as Markdown; it is made only from the version's own files.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from components.bundle.config import VARIANT, BundleConfig, Variant
from components.bundle.files import CARD, CONFIG, EVALUATION, MANIFEST, SIGNATURE
from components.bundle.headline import Headline
from components.bundle.markdown import escape, table
from components.classifier.errors import DataError, IntegrityError, ObjectExists, StoreError, StoreUnavailable, UsageError
from components.registry.manifest import MAX_BYTES, FileEntry, Manifest, hash_files, size_problems, version_name
from components.registry.registry import ModelVersion, Registry
from components.registry.signing import sign, sign_files
from components.storage.files import explain_os_errors
from components.storage.store import Progress

_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
}
MAX_CONFUSIONS = 3


def publish_directory(registry: Registry, directory: Path, *, run: str = "") -> ModelVersion:
    """Publish the files of a directory as a version; the same files again find the same version and change nothing.

    A model card is written when the directory has none. Raises DataError for a directory that is not a bundle, StoreError for a store
    that fails; then no reader sees a version.
    """
    with explain_os_errors(f"cannot read {directory}"):
        files = {path.name: path for path in sorted(directory.iterdir()) if not path.name.startswith(".")}
    return publish_files(registry, files, run=run)


def publish_files(registry: Registry, files: Mapping[str, Path], *, run: str = "") -> ModelVersion:
    """Publish files that lie in several places, by their names in the version; else like `publish_directory`."""
    files = {name: path for name, path in files.items() if name not in {MANIFEST, SIGNATURE}}
    for name, path in files.items():
        if not path.is_file():
            raise DataError(f"{path} is not a file, and a model version holds only files; remove {name!r} and publish again")
    draft = _draft(registry.name, files, run)
    if (found := _find(registry, draft)) is not None:
        _mend(registry, found.manifest, draft, files)
        found = _find(registry, draft)  # it may have been deleted while it was looked at
    return found or _Publication(registry, draft, files).publish()


def _mend(registry: Registry, manifest: Manifest, draft: Manifest, files: Mapping[str, Path]) -> None:
    """Put back what a published version has lost since, or what was changed: that is what the errors about it ask for."""
    sizes = registry.sizes(manifest.version)
    damaged = {name for name, entry in manifest.files.items() if sizes.get(name) != entry.size} | {*registry.changed(manifest, sizes)}
    for name in damaged & files.keys():
        if draft.files[name].sha256 == manifest.files[name].sha256:
            registry.store.upload(files[name], registry.key(manifest.version, name))


def _draft(name: str, files: Mapping[str, Path], run: str) -> Manifest:
    config = BundleConfig.load(files[CONFIG].parent if CONFIG in files else Path())
    with explain_os_errors("cannot read the files to publish"):
        entries = hash_files(files)
    draft = Manifest(
        name=name,
        version="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        trained_at=config.trained_at,
        run=run,
        dataset_digest=config.dataset_digest,
        code_version=config.code_version,
        architecture=config.architecture,
        classes=config.classes,
        parameters=config.parameters,
        metrics=Headline.read(files.get(EVALUATION)).figures,
        files=entries,
    )
    return draft.model_copy(update={"version": version_name(config.trained_at, draft.content_digest)})


def _find(registry: Registry, draft: Manifest) -> ModelVersion | None:
    found = registry.find(draft.version)
    if found is not None and found.manifest.content_digest != draft.content_digest:
        raise IntegrityError(f"version {draft.version} of {registry.name} holds other files; delete it, then publish again")
    return found


class _Publication:
    """One publishing of a version that is not there yet; others may publish the same files at the same time."""

    def __init__(self, registry: Registry, draft: Manifest, files: Mapping[str, Path]) -> None:
        self.registry, self.store, self.draft, self.files = registry, registry.store, draft, files

    def publish(self) -> ModelVersion:
        sign(self.draft.body())  # a key that cannot sign is found before anything is written
        self.store.require_create_only()
        before = self.registry.sizes(self.draft.version).keys()
        try:
            return self._commit(*self._upload())
        except StoreUnavailable:
            raise  # what has arrived is kept for the next try
        except StoreError:
            self._take_back({*self.files, CARD, SIGNATURE} - before)
            raise

    def _upload(self) -> tuple[Manifest, dict[str, bytes]]:
        for name in sorted(self.files.keys() - {CARD}):
            self._put(name)
        own = self.files.get(CARD)
        card = own.read_bytes() if own else model_card(self.draft, Headline.read(self.files.get(EVALUATION))).encode()
        made = {CARD: self._put_once(CARD, card)}
        if signature := self._put_signature(made[CARD]):
            made[SIGNATURE] = signature
        entries = {name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for name, data in made.items()}
        manifest = self.draft.model_copy(update={"files": dict(sorted({**self.draft.files, **entries}.items()))})
        self.registry.refuse(self.draft.version, size_problems(self.registry.sizes(self.draft.version), manifest))
        return manifest.sealed(sign(manifest.body())), made

    def _put(self, name: str) -> None:
        self.store.upload(self.files[name], self._key(name))

    def _put_signature(self, card: bytes) -> bytes | None:
        """Write the signature for the tools of others, over the files and the card; None without a key."""
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder, CARD)
            kept.write_bytes(card)
            signature = sign_files({**self.files, CARD: kept}, self.registry.name)
        return self._put_once(SIGNATURE, signature) if signature else None

    def _put_once(self, name: str, data: bytes) -> bytes:
        """Write a file unless the store has one: it may differ for equal versions, and the manifest must fit the one kept."""
        try:
            self.store.create(self._key(name), data)
        except ObjectExists:
            return self.store.read(self._key(name), MAX_BYTES)
        return data

    def _commit(self, manifest: Manifest, made: Mapping[str, bytes]) -> ModelVersion:
        with suppress(ObjectExists):  # another publisher of the same files was first
            self.store.create(self._key(MANIFEST), manifest.to_bytes())
        # One that failed may have taken its files back just now: they are ours as well.
        there = self.registry.sizes(manifest.version).keys()
        for name in self.files.keys() - there - {CARD}:
            self._put(name)
        for name in made.keys() - there:
            self._put_once(name, made[name])
        return _find(self.registry, manifest) or self.registry.get(manifest.version)

    def _take_back(self, names: set[str]) -> None:
        """Remove what a failed publish wrote, as far as the store allows: a failed publish must not fill a disk."""
        with suppress(StoreError):  # the error that made it fail is raised
            if not self.store.exists(self._key(MANIFEST)):
                for name in names:
                    self.store.delete(self._key(name))

    def _key(self, name: str) -> str:
        return self.registry.key(self.draft.version, name)


def copy_version(source: Registry, target: Registry, version: str, progress: Progress | None = None) -> ModelVersion:
    """Copy a version with its manifest as it is; returns the version in the target.

    A copy that broke off is continued: files that are in the target with the right digest are kept. Every file is hashed when it
    is read from the source and again in the target, before the manifest makes the version exist there. Raises IntegrityError when
    a digest does not fit, naming the file and the store, and UsageError for a target of another model name or the source itself.
    """
    if (source.store.url, source.name) == (target.store.url, target.name) or source.name != target.name:
        raise UsageError(f"version {version} can only be copied to the same model name in another store, not to {target.uri(version)}")
    found = source.get(version)
    target.store.require_create_only()
    present = target.sizes(version)
    for name in sorted(found.manifest.files):
        if not _intact(target, found.manifest, name, present):
            _copy_file(source, target, found.manifest, name)
        if progress:
            progress(found.manifest.files[name].size)
    try:
        target.store.create(target.key(version, MANIFEST), found.manifest.to_bytes())
    except ObjectExists:
        there = target.get(version)
        if there.manifest.files != found.manifest.files:
            raise IntegrityError(f"{there.uri} holds another model card than {found.uri}; delete one of them and copy again") from None
        return there
    for name in sorted(found.manifest.files.keys() - target.sizes(version).keys()):  # who deleted it there meanwhile took them
        _copy_file(source, target, found.manifest, name)
    return target.get(version)


def _intact(target: Registry, manifest: Manifest, name: str, present: dict[str, int]) -> bool:
    wanted = manifest.files[name]
    return present.get(name) == wanted.size and target.store.sha256(target.key(manifest.version, name)) == wanted.sha256


def _copy_file(source: Registry, target: Registry, manifest: Manifest, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        passing = Path(folder, "file")
        if not source.fetch_file(manifest, name, passing):
            raise IntegrityError(f"{name} in {source.uri(manifest.version)} was changed; publish the version again")
        target.store.upload(passing, target.key(manifest.version, name))
    if target.store.sha256(target.key(manifest.version, name)) != manifest.files[name].sha256:
        raise IntegrityError(f"{name} arrived damaged in {target.uri(manifest.version)}; copy again, and look at that store")


def model_card(manifest: Manifest, results: Headline) -> str:
    """Write the card of a version from its manifest (a draft without the card itself) and its evaluation's figures.

    The text depends on the version's content only, not on the run, so that publishing again gives the same bytes.
    """
    parameters = [(name, _text(value)) for name, value in sorted(manifest.parameters.items()) if name != VARIANT]
    sections = [
        f"# {escape(manifest.name)} {manifest.version}",
        f"An image classifier ({escape(manifest.architecture)}) that tells {len(manifest.classes)} classes apart: "
        f"{', '.join(escape(name) for name in manifest.classes)}.",
        "## Origin\n\n" + _lines(table(("", ""), _origin(manifest, results))),
        "## Results on the sealed test split\n\n" + _results(results),
        "## Limits\n\n" + _lines(_limits(results)),
        "## Parameters\n\n" + (_lines(table(("Parameter", "Value"), parameters)) if parameters else "None."),
    ]
    return "\n\n".join(sections) + "\n"


def _origin(manifest: Manifest, results: Headline) -> list[tuple[str, str]]:
    rows = [("Trained at", manifest.trained_at), ("Dataset", manifest.dataset_digest), ("Code version", manifest.code_version)]
    rows += [("Content digest", manifest.content_digest)]
    if (variant := Variant.of(manifest.parameters)) is not None:
        rows += [("Made as", f"{variant.kind}: {variant.how}"), ("Made of", ", ".join(parent.version for parent in variant.parents))]
    return rows + ([("Source", results.source)] if results.source else [])


def _results(results: Headline) -> str:
    if results == Headline():
        return "This version was published without an evaluation."
    rows = [(_LABELS[name], f"{value:.4f}" + _interval(results, name)) for name, value in results.figures.items()]
    text = f"{results.n:,} pictures.\n\n" if results.n is not None else ""
    text += _lines(table(("Measure", "Value"), rows)) if rows else "None."
    classes = [
        (c.name, _text(c.support), *("-" if share is None else f"{share:.3f}" for share in (c.precision, c.recall, c.f1)))
        for c in results.per_class or []
        if c is not None
    ]
    return text + ("\n\n" + _lines(table(("Class", "Pictures", "Precision", "Recall", "F1"), classes)) if classes else "")


def _interval(results: Headline, name: str) -> str:
    accuracy = results.accuracy
    if name != "accuracy" or accuracy is None or accuracy.low is None or accuracy.high is None:
        return ""
    return f" (95% interval {accuracy.low:.4f} to {accuracy.high:.4f})"


def _limits(results: Headline) -> list[str]:
    confusions = [c for c in (results.largest_confusions or [])[:MAX_CONFUSIONS] if c is not None]
    lines = [
        "Every picture gets one of the classes above, also one that shows none of them; answers of low confidence belong to a person.",
        "The numbers hold for pictures like those of the test split.",
        *(f"{c.share:.1%} of {escape(c.label)} were taken for {escape(c.predicted)}." for c in confusions),
        *(escape(warning) for warning in results.warnings or []),
    ]
    return [f"- {line}" for line in lines]


def _lines(lines: list[str]) -> str:
    return "\n".join(lines)


def _text(value: object) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
