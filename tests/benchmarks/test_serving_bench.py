"""The serving benchmark's own parts: what it sends, and what it makes of the numbers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving.load import Load
from benchmarks.serving.peers import BARE, KSERVE, LITSERVE, PEERS, PENSTOCK, ROWS
from benchmarks.serving.report import Results, markdown
from components.classifier.images import ImageSpec
from components.predictor.protocol import v1, v2
from components.predictor.protocol.request import RequestLimits

LIMITS = RequestLimits(max_images=4, max_pixels=10_000, images_here=4, cost_here=10_000)
SPEC = ImageSpec(28, 28, 1)
IMAGE = np.arange(784, dtype=np.uint16).astype(np.uint8).reshape(28, 28, 1)


@pytest.mark.parametrize("row", ROWS)
def test_the_predictor_reads_the_same_picture_from_every_row(row: str) -> None:
    request = PENSTOCK.requests[row]
    body, headers = request.body(IMAGE), request.headers(IMAGE)
    if request.path.endswith(":predict"):
        found = v1.parse(body, SPEC, LIMITS)
    else:
        found, _ = v2.parse(body, int(headers["Inference-Header-Content-Length"]), SPEC, LIMITS)
    assert np.array_equal(found.images, IMAGE[None])


def test_every_peer_is_asked_every_row_and_its_packages_are_pinned() -> None:
    for peer in PEERS:
        assert tuple(peer.requests) == ROWS
        assert all("==" in requirement for requirement in peer.requirements)
        assert Path(peer.command[-1]).exists() or "{" in " ".join(peer.command)


def test_the_report_gives_medians_ratios_and_names_who_is_ahead() -> None:
    rates = {PENSTOCK.name: (300, 100, 200), BARE.name: (250, 250, 250), KSERVE.name: (50, 50, 50), LITSERVE.name: (210, 210, 210)}
    results = []
    for peer in (PENSTOCK, BARE, KSERVE, LITSERVE):
        loads = [Load(rate, p50=1, p99=5, cpu=400) for rate in rates[peer.name]]
        cells = {(row, 1): loads for row in ROWS}
        results.append(Results(peer, cells, starts=[2.0], memory_ready=[(100, 90)], memory_after=[(110, 95)]))
    text = markdown(results, (1,), 3, 1)
    assert "| V1 JSON | 1 | Penstock | 200 | 5.00 | 400 | 1.00 | 100 to 300 |" in text
    assert "| V1 JSON | 1 | 4.00 | 0.80 | LitServe 0.2 | KServe 0.21 model, sync predict, LitServe 0.2 |" in text
