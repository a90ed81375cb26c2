"""Pretrained weights come from the cache or from the network, or the run ends in seconds; they are never random in silence."""

import hashlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision import models

from components.classifier.errors import TrainingError, UsageError
from components.classifier.images import ImageSpec
from components.classifier.network import build
from components.classifier.pretrained import check_pretrained, normalisation

WEIGHTS = models.SqueezeNet1_1_Weights.DEFAULT
SPEC = ImageSpec(32, 32, 3)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network, named like torchvision's files after the start of their SHA-256."""
    torch.manual_seed(11)
    plain = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(models.squeezenet1_1().state_dict(), plain)
    return plain.rename(plain.with_name(f"squeezenet1_1-{hashlib.sha256(plain.read_bytes()).hexdigest()[:8]}.pth"))


@pytest.fixture
def server(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A download server in place of torchvision's."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(weights_file.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(WEIGHTS.value, "url", f"http://127.0.0.1:{server.server_port}/{weights_file.name}")
    yield server
    server.shutdown()
    server.server_close()


def assert_starts_from(weights_file: Path) -> None:
    expected = torch.load(weights_file, weights_only=True)
    found = build("squeezenet1_1", SPEC, 3, pretrained=True).state_dict()
    same = [torch.equal(expected[name], found[f"body.{name}"]) for name in expected if not name.startswith("classifier.1")]
    assert all(same)
    assert found["body.classifier.1.weight"].shape[0] == 3


def test_without_file_and_network_the_file_and_its_place_are_named(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WEIGHTS.value, "url", "http://127.0.0.1:9/models/squeezenet1_1-b8a52dc0.pth")
    started = time.monotonic()
    for attempt in (lambda: check_pretrained("squeezenet1_1"), lambda: build("squeezenet1_1", SPEC, 3, pretrained=True)):
        with pytest.raises(TrainingError) as raised:
            attempt()
        assert "put squeezenet1_1-b8a52dc0.pth" in str(raised.value)
        assert str(hub) in str(raised.value)
        assert "TORCH_HOME" in str(raised.value)
    assert time.monotonic() - started < 30


def test_the_file_in_the_cache_is_used_without_network(hub: Path, weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WEIGHTS.value, "url", f"http://127.0.0.1:9/{weights_file.name}")
    hub.mkdir(parents=True)
    (hub / weights_file.name).write_bytes(weights_file.read_bytes())
    assert check_pretrained("squeezenet1_1") == hub / weights_file.name
    assert_starts_from(weights_file)


@pytest.mark.usefixtures("server")
def test_with_a_network_it_is_downloaded_into_the_cache(hub: Path, weights_file: Path) -> None:
    assert check_pretrained("squeezenet1_1") == hub / weights_file.name
    assert not hub.exists(), "the check itself loads nothing"
    assert_starts_from(weights_file)
    assert (hub / weights_file.name).read_bytes() == weights_file.read_bytes()


@pytest.mark.usefixtures("server")
def test_a_file_cut_short_is_named(hub: Path, weights_file: Path) -> None:
    hub.mkdir(parents=True)
    (hub / weights_file.name).write_bytes(weights_file.read_bytes()[:100_000])
    with pytest.raises(TrainingError, match="is damaged or holds no weights; replace it by http://127"):
        check_pretrained("squeezenet1_1")


@pytest.mark.usefixtures("server")
def test_weights_of_another_origin_are_used_with_a_warning(hub: Path, weights_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.mkdir(parents=True)
    torch.manual_seed(12)
    torch.save(models.squeezenet1_1().state_dict(), hub / weights_file.name)
    assert_starts_from(hub / weights_file.name)
    check_pretrained("squeezenet1_1")
    (said,) = capfd.readouterr().err.splitlines()  # once, and as `penstock run` shows it
    assert said.startswith("warning: ")
    assert "is not torchvision's file" in said


def test_own_architectures_have_none() -> None:
    with pytest.raises(UsageError, match="has no pretrained weights"):
        check_pretrained("small_cnn")


def test_pictures_are_normalised_as_the_weights_expect() -> None:
    assert normalisation("squeezenet1_1", 3) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert normalisation("squeezenet1_1", 1)[0] == [pytest.approx(0.449)]
