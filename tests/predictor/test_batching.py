"""Pictures of several requests in one run of the model: the same answers, in fewer runs, each to who asked."""

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from components.bundle.model import Answers, Classifier
from components.predictor.batching import MAX_PICTURES, MAX_TOGETHER, Batcher
from components.predictor.dispatch import Runner
from components.predictor.loaded_model import load, same_in_batches
from components.predictor.settings import PredictorSettings
from components.validate_serving.predictor_process import predictor
from tests import tiny
from tests.predictor.versions import INFER, NAME, PREDICT, binary, model_dir, tensor

THREADS = 12


class Held:
    """A real classifier whose first run goes on until `release` is set."""

    def __init__(self, classifier: Classifier, error: Exception | None = None, runs: list[int] | None = None) -> None:
        self._classifier, self._error, self._runs = classifier, error, [] if runs is None else runs
        self.began, self.release = threading.Event(), threading.Event()

    def answer(self, images: np.ndarray, batch_size: int) -> Answers:
        self._runs.append(len(images))
        first = not self.began.is_set()
        self.began.set()
        if first:
            assert self.release.wait(60)
        if self._error is not None:
            raise self._error
        return self._classifier.answer(images, batch_size)


@pytest.fixture(scope="module")
def classifier(served_dir: Path) -> Classifier:
    return Classifier(served_dir, threads=1, bound=True)


def ask_behind_a_run(batcher: Batcher, held: Any, requests: list[np.ndarray]) -> list[Any]:
    """Answer the first request, and while it runs let all the others come."""
    with ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(batcher.answer, held, requests[0])]
        assert held.began.wait(60)
        futures += [pool.submit(batcher.answer, held, request) for request in requests[1:]]
        while len(batcher._waiting) < len(requests) - 1:
            threading.Event().wait(0.001)
        held.release.set()
        return [future.exception() or future.result() for future in futures]


def test_who_comes_while_the_model_runs_shares_the_next_run(classifier: Classifier) -> None:
    runs: list[int] = []
    images = tiny.digits()[0]
    requests = [images[number : number + 1 + number % 3] for number in range(THREADS)]
    found = ask_behind_a_run(Batcher(0.002, lambda: 0, runs.append), Held(classifier), requests)
    assert runs == [1, sum(map(len, requests)) - 1]
    for request, answers in zip(requests, found, strict=True):
        np.testing.assert_allclose(answers.probabilities, classifier.probabilities(request), atol=1e-6)
        if answers.familiarity is not None:
            np.testing.assert_allclose(answers.familiarity, classifier.answer(request).familiarity, atol=1e-6)


def test_a_run_has_at_most_so_many_pictures(classifier: Classifier) -> None:
    runs: list[int] = []
    images = np.resize(tiny.digits()[0], (MAX_PICTURES, 8, 8, 1))
    ask_behind_a_run(Batcher(0.002, lambda: 0, runs.append), Held(classifier), [images[:1], images[:200], images[:200], images[:50]])
    assert runs[0] == 1
    assert sum(runs) == 451
    assert max(runs) <= MAX_PICTURES


def test_a_request_of_more_pictures_than_a_run_has_is_answered_whole(classifier: Classifier) -> None:
    images = np.resize(tiny.digits()[0], (2 * MAX_PICTURES + 3, 8, 8, 1))
    assert len(Batcher(0, lambda: 1).answer(classifier, images).probabilities) == len(images)


def test_versions_are_not_mixed_in_one_run(classifier: Classifier, served_dir: Path) -> None:
    held, other = Held(classifier), Classifier(served_dir, threads=1)
    images, runs = tiny.digits()[0], list[int]()
    batcher = Batcher(0.002, lambda: 0, runs.append)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(batcher.answer, held, images[:1])]  # type: ignore[arg-type]
        assert held.began.wait(60)
        for number, it in enumerate((held, other, held), 1):
            futures.append(pool.submit(batcher.answer, it, images[:number]))  # type: ignore[arg-type]
            while len(batcher._waiting) < number:
                threading.Event().wait(0.001)
        held.release.set()
        assert [len(future.result().probabilities) for future in futures] == [1, 1, 2, 3]
    assert sorted(runs) == [1, 1, 2, 3]


def test_a_run_that_fails_fails_for_all_that_shared_it_and_the_next_goes_on(classifier: Classifier) -> None:
    batcher, images = Batcher(0.002, lambda: 0), tiny.digits()[0]
    errors = ask_behind_a_run(batcher, Held(classifier, ValueError("broken")), [images[:1]] * 4)
    assert [str(error) for error in errors] == ["broken"] * 4
    assert len(batcher.answer(classifier, images[:2]).probabilities) == 2


def test_whoever_is_alone_waits_for_nobody(classifier: Classifier) -> None:
    """With a window of an hour, this would end at the test's own time limit."""
    assert len(Batcher(3600, lambda: 1).answer(classifier, tiny.digits()[0][:1]).probabilities) == 1


def test_the_first_waits_for_the_others_that_are_being_read(classifier: Classifier) -> None:
    runs: list[int] = []
    batcher = Batcher(3600, lambda: 3, runs.append)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: batcher.answer(classifier, tiny.digits()[0][:number]), (1, 2, 3)))
    assert runs == [6]


async def ask_while_it_runs(runner: Runner, held: Any, requests: list[tuple[Any, np.ndarray]]) -> list[Any]:
    """Ask the runner about one picture, and while that runs about the requests' pictures."""
    first = asyncio.ensure_future(runner.answer(held, tiny.digits()[0][:1]))
    await asyncio.to_thread(held.began.wait, 60)
    others = [asyncio.ensure_future(runner.answer(classifier, images)) for classifier, images in requests]
    await asyncio.sleep(0)
    assert runner.depth == len(requests) + 1
    held.release.set()
    found = await asyncio.gather(first, *others, return_exceptions=True)
    assert runner.depth == 0
    runner.close()
    return found[1:]


def test_requests_that_the_event_loop_reads_while_the_model_runs_share_runs_and_get_the_same_bits(tmp_path: Path) -> None:
    loaded, runs = load(NAME, model_dir(tmp_path, familiarity=True), 1), list[int]()
    assert loaded.together
    held, images = Held(loaded.classifier, runs=runs), tiny.digits()[0]
    requests = [(held, images[number : number + 1 + number % 4]) for number in range(THREADS)]
    found = asyncio.run(ask_while_it_runs(Runner(), held, requests))
    assert sum(runs) == 1 + sum(len(request) for _, request in requests)
    assert len(runs) == 4
    assert max(runs) <= MAX_TOGETHER
    for (_, request), answers in zip(requests, found, strict=True):
        alone = loaded.classifier.answer(request)
        assert answers.probabilities.tobytes() == alone.probabilities.tobytes()
        assert alone.familiarity is not None
        assert answers.familiarity.tobytes() == alone.familiarity.tobytes()


def test_the_event_loop_gets_what_a_run_raises_and_versions_are_not_mixed(classifier: Classifier) -> None:
    broken, images = Held(classifier, ValueError("broken")), tiny.digits()[0]
    found = asyncio.run(ask_while_it_runs(Runner(), broken, [(broken, images[:1]), (classifier, images[:2]), (broken, images[:1])]))
    assert [str(error) for error in found[::2]] == ["broken"] * 2
    np.testing.assert_array_equal(found[1].probabilities, classifier.probabilities(images[:2]))


def test_many_clients_at_once_get_what_one_alone_gets(url: str, pictures: np.ndarray) -> None:
    bodies = [{"instances": pictures[index : index + 1 + index % 4].tolist(), "return_probabilities": True} for index in range(8)]

    def ask(number: int) -> list[Any]:
        with httpx.Client(base_url=url, timeout=60) as client:
            return [client.post(PREDICT, json=bodies[(number + step) % len(bodies)]).json() for step in range(len(bodies))]

    alone = ask(0)
    with ThreadPoolExecutor(16) as pool:
        for number, found in enumerate(pool.map(ask, range(16))):
            assert found == [alone[(number + step) % len(bodies)] for step in range(len(bodies))]


class Uneven:
    """A classifier whose last bits depend on the size of the batch, as some libraries' do."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def answer(self, images: np.ndarray, batch_size: int = 256) -> Answers:
        probabilities, familiarity = self._classifier.answer(images, batch_size)
        return Answers(np.nextafter(probabilities, np.float32(len(images) > 7)), familiarity)


def test_a_model_whose_bits_depend_on_the_batch_is_not_run_for_several_requests(classifier: Classifier) -> None:
    images = tiny.digits()[0][:5]
    assert same_in_batches(classifier, images)
    assert not same_in_batches(Uneven(classifier), images)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [({}, 0), ({"device": "cuda"}, 0.002), ({"device": "cuda", "batch_window_ms": 0}, 0), ({"batch_window_ms": 1.5}, 0.0015)],
)
def test_requests_are_batched_on_a_gpu_or_where_it_is_asked_for(given: dict[str, Any], seconds: float) -> None:
    assert PredictorSettings(**given).batch_seconds == pytest.approx(seconds)


@pytest.fixture(scope="module")
def batching_url(served_dir: Path) -> Iterator[str]:
    with predictor(NAME, served_dir, 60, "--batch_window_ms", "2") as (_, started):
        yield started.url


def test_a_server_that_batches_answers_everyone_as_one_that_does_not(batching_url: str, pictures: np.ndarray, expected: np.ndarray) -> None:
    def ask(number: int) -> None:
        index = number % len(pictures)
        picture = pictures[index : index + 1]
        with httpx.Client(base_url=batching_url, timeout=60) as client:
            if number % 3 == 0:
                body = {"instances": picture.tolist(), "return_probabilities": True}
                found = list(client.post(PREDICT, json=body).json()["predictions"][0]["probabilities"].values())
            elif number % 3 == 1:
                header = {"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": 64})], "outputs": [{"name": "probabilities"}]}
                found = client.post(INFER, **binary(header, picture.tobytes())).json()["outputs"][0]["data"]
            else:
                assert client.post(PREDICT, json={"instances": [[1, 2]]}).status_code == 400
                return
            np.testing.assert_allclose(found, expected[index], atol=1e-5)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(120)))
    metrics = httpx.get(f"{batching_url}/metrics", timeout=60).text
    pictures_run = float(re.search(r"penstock_batch_pictures_sum (\S+)", metrics)[1])  # type: ignore[index]
    assert pictures_run == 80
    assert 0 < float(re.search(r"penstock_batch_pictures_count (\S+)", metrics)[1]) <= 80  # type: ignore[index]


def test_a_gpu_that_is_not_there_ends_the_server_before_it_listens(served_dir: Path) -> None:
    from components.bundle.model import why_no_cuda
    from components.classifier.errors import ServingError

    if not why_no_cuda():
        pytest.skip("there is a GPU here")
    with (
        pytest.raises(ServingError, match="exit code 2: device 'cuda' was requested, but"),
        predictor(NAME, served_dir, 60, "--device", "cuda"),
    ):
        pass
