"""The written rule of rollback, as `penstock models rollback` follows it."""

from pathlib import Path

import pytest

from components.classifier.errors import IntegrityError, RegistryError, UsageError, VersionNotFound
from components.deploy.local import rollback
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.registry import bundles


def draft(action: str, version: str, **fields: object) -> Record:
    return Record(action=action, version=version, strategy="force", **fields)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(open_store(str(tmp_path / "store")), "digits")


def published(registry: Registry, folder: Path, *names: str) -> list[str]:
    return [publish_directory(registry, bundles.quick(folder / name, name.encode())).version for name in names]


def test_rollback_by_the_written_rule_step_by_step(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nothing of digits has been deployed"):
        rollback(registry)
    one, two, three, four = published(registry, tmp_path, "1", "2", "3", "4")
    registry.ledger.append(draft("deployed", one, environment="dev"))
    registry.ledger.append(draft("deployed", two, environment="dev"))
    registry.ledger.append(draft("failed", three))
    record = rollback(registry, actor="me", reason="night pictures")
    assert (record.action, record.version, record.champion, record.previous) == ("rolled_back", one, one, two)
    assert (record.actor, record.reason, record.environment, record.strategy) == ("me", "night pictures", "dev", "rollback")
    with pytest.raises(RegistryError, match=f"nothing was deployed before the champion {one}"):
        rollback(registry)
    registry.ledger.append(draft("deployed", four))
    assert rollback(registry).champion == one
    assert rollback(registry, to=three).champion == three
    before = len(registry.ledger.records())
    assert rollback(registry, to=three).sequence == before == len(registry.ledger.records())
    assert rollback(registry, to="previous").champion == one


def test_rollback_never_brings_back_what_is_damaged_or_gone(registry: Registry, tmp_path: Path) -> None:
    one, two = published(registry, tmp_path, "1", "2")
    for version in (one, two):
        registry.ledger.append(draft("deployed", version))
    registry.store.replace(f"models/digits/{one}/file0.bin", b"x")
    with pytest.raises(IntegrityError, match=r"file0\.bin was changed"):
        rollback(registry)
    registry.delete(one)
    with pytest.raises(VersionNotFound, match=one):
        rollback(registry)
    with pytest.raises(VersionNotFound):
        rollback(registry, to="20200101-000000-000000000000")
    assert registry.ledger.champion() == two


def test_a_champion_on_a_cluster_is_left_to_the_deployment_pipeline(registry: Registry, tmp_path: Path) -> None:
    one, two = published(registry, tmp_path, "1", "2")
    for version in (one, two):
        registry.ledger.append(draft("deployed", version, target="kserve"))
    with pytest.raises(UsageError, match=r"serves on kserve; run `penstock submit deployment --host URL --set version=previous .*store="):
        rollback(registry)
    with pytest.raises(UsageError, match=f"--set version={one} --set target=kserve"):
        rollback(registry, to=one)
    assert registry.ledger.champion() == two
