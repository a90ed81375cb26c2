"""Versions in several stores: copied to all that can take them, and what serves in each."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.registry.regions import Region, compare_regions
from components.storage import open_store
from pipelines.cli import models
from tests.registry import bundles

OLD, MIDDLE, NEW = (f"2026010{day}-000000-{'abc'[day - 1] * 12}" for day in (1, 2, 3))
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def record(action: str, version: str, champion: str, day: int) -> Record:
    fields = {
        "action": action,
        "version": version,
        "champion": champion,
        "strategy": "quality",
        "time": f"2026-01-{day:02d}T00:00:00+00:00",
    }
    return Record.model_validate(fields)


def served(*versions: str, from_day: int = 10) -> list[Record]:
    """A ledger in which these were deployed one after the other, a day apart."""
    return [record("deployed", version, version, from_day + k) for k, version in enumerate(versions)]


def test_a_region_lags_behind_the_newest_champion_by_versions_and_time() -> None:
    ledgers = {"eu": served(OLD, MIDDLE, NEW), "us": served(OLD), "asia": [], "home": served(NEW, from_day=20)}
    assert compare_regions(ledgers, NOW) == [
        Region("eu", NEW, "2026-01-12T00:00:00+00:00", 0, timedelta()),
        Region("us", OLD, "2026-01-10T00:00:00+00:00", 2, timedelta(days=20)),
        Region("asia", "", "", 3, timedelta(days=20)),
        Region("home", NEW, "2026-01-20T00:00:00+00:00", 0, timedelta()),
    ]


def test_what_was_held_or_rolled_back_is_not_what_serves() -> None:
    back = [*served(OLD, MIDDLE), record("held", NEW, MIDDLE, 15), record("rolled_back", OLD, OLD, 20), record("held", NEW, OLD, 21)]
    (eu, us) = compare_regions({"eu": back, "us": served(MIDDLE)}, NOW)
    assert eu == Region("eu", OLD, "2026-01-20T00:00:00+00:00", 1, timedelta(days=22))
    assert (us.champion, us.behind, us.lag) == (MIDDLE, 0, timedelta())


def test_a_version_that_was_rolled_back_everywhere_is_one_that_nobody_lags_behind() -> None:
    back = [*served(OLD, MIDDLE, NEW), record("rolled_back", MIDDLE, MIDDLE, 20)]
    (eu, us, asia) = compare_regions({"eu": back, "us": served(OLD), "asia": served(MIDDLE, from_day=25)}, NOW)
    assert [(region.behind, region.lag > timedelta()) for region in (eu, us, asia)] == [(0, False), (1, True), (0, False)]


def test_where_nothing_serves_no_region_lags() -> None:
    assert compare_regions({"eu": [], "us": []}, NOW) == [Region(name, "", "", 0, timedelta()) for name in ("eu", "us")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Registry:
    """Two versions, of which the second serves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_STORE", "home")
    registry = Registry(open_store("home"), "digits")
    for number in (1, 2):
        version = publish_directory(
            registry, bundles.quick(tmp_path / f"{number}", b"x" * number, f"2026-0{number}-01T00:00:00+00:00")
        ).version
        registry.ledger.append(Record(action="deployed", version=version, strategy="quality"))
    return registry


def call(*arguments: str) -> Result:
    return CliRunner().invoke(models.app, list(arguments))


def test_a_version_is_copied_to_all_stores_that_can_take_it_and_the_others_are_named(home: Registry, tmp_path: Path) -> None:
    (tmp_path / "full").write_text("a file where a store should be")
    to = [part for place in ("eu", "full", "us") for part in ("--to", str(tmp_path / place))]
    done = call("copy", "champion", *to, "--json")
    assert done.exit_code == 1
    assert f"did not get to 1 of 3 stores ({tmp_path / 'full'}: " in str(done.exception)
    champion = home.resolve("champion")
    stores = json.loads(done.stdout)["stores"]
    assert [sorted(found) for found in stores.values()] == [["uri"], ["error"], ["uri"]]
    for place in ("eu", "us"):
        assert Registry(open_store(str(tmp_path / place)), "digits").verify(champion) == []
    (tmp_path / "full").unlink()
    again = call("copy", "champion", *to)
    assert again.exit_code == 0, again.output
    assert again.stdout.count("all digests checked") == 3


def test_one_store_that_fails_says_why_as_before(home: Registry, tmp_path: Path) -> None:
    (tmp_path / "full").write_text("")
    assert "full is a file, not a store" in str(call("copy", "champion", "--to", str(tmp_path / "full")).exception)
    assert "twice" in str(call("copy", "champion", "--to", "eu", "--to", "eu").exception)


def test_regions_are_shown_with_what_serves_and_how_far_they_lag(home: Registry, tmp_path: Path) -> None:
    first, second = sorted(home.newest())
    assert call("copy", first, "--to", "eu").exit_code == 0
    eu = Registry(open_store("eu"), "digits")
    eu.ledger.append(Record(action="deployed", version=first, strategy="manual"))
    assert call("copy", second, "--to", "eu").exit_code == 0
    shown = json.loads(call("regions", "--at", "home=home", "--at", "eu=eu", "--at", "us=us", "--json").stdout)
    assert [(row["region"], row["champion"], row["newest"], row["versions_behind"]) for row in shown] == [
        ("home", second, second, 0),
        ("eu", first, second, 1),
        ("us", None, None, 2),
    ]
    (tmp_path / "penstock.yaml").write_text("regions: {home: home, eu: eu}")
    text = call("regions").stdout
    assert "1 version, 0 min" in text
    assert "us" not in text
    assert "Nothing serves" not in text


def test_a_region_that_has_a_copy_and_no_deployment_says_what_is_missing(home: Registry) -> None:
    version, _ = sorted(home.newest())
    assert call("copy", version, "--to", "eu").exit_code == 0
    text = call("regions", "--at", "eu=eu").stdout
    assert text.splitlines()[1].split() == ["eu", "nothing", "–", "–"]
    assert f"deploy one there: penstock run deployment --store eu --name digits --set version={version}" in text


def test_a_version_that_was_rolled_back_elsewhere_is_not_what_a_region_is_told_to_deploy(home: Registry) -> None:
    first, second = sorted(home.newest())
    home.ledger.append(Record(action="rolled_back", version=first, strategy="rollback"))
    for version, command in ((second, f"models copy {first} --store home --name digits --to eu"), (first, f"version={first}")):
        assert call("copy", version, "--to", "eu").exit_code == 0
        text = call("regions", "--at", "home=home", "--at", "eu=eu").stdout
        assert command in text
        assert f"version={second}" not in text


def test_a_region_that_cannot_be_read_does_not_hide_the_others(home: Registry, tmp_path: Path) -> None:
    eu = Registry(open_store("eu"), "digits")
    eu.store.create("deployments/digits/000002.json", b"{}")
    done = call("regions", "--at", "home", "--at", "eu=eu", "--json")
    (good, bad) = json.loads(done.stdout)
    assert (done.exit_code, good["champion"]) == (1, home.resolve("champion"))
    assert "lacks record 000001" in bad["error"]
    assert "eu cannot be read" in str(done.exception)


def test_different_models_are_not_compared(home: Registry, tmp_path: Path) -> None:
    for store, name in (("cats", "cat"), ("pets", "pet")):
        publish_directory(Registry(open_store(store), name), bundles.quick(tmp_path / f"of {store}", b"x"))
    refused = call("regions", "--at", "eu=cats", "--at", "us=pets")
    assert "different models (cat, pet); say which one by --name" in str(refused.exception)
    shown = json.loads(call("regions", "--at", "eu=cats", "--at", "us=new", "--json").stdout)
    assert [row["newest"] is None for row in shown] == [False, True]
    (tmp_path / "file").touch()
    unread = call("regions", "--at", "eu=cats", "--at", "us=file", "--json")
    assert (unread.exit_code, "is a file, not a store" in json.loads(unread.stdout)[1]["error"]) == (1, True)


def test_stores_must_be_said(home: Registry) -> None:
    assert "say which stores" in str(call("regions").exception)
    assert "twice" in str(call("regions", "--at", "eu=a", "--at", "eu=b").exception)
