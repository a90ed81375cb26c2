"""Runs the pictures of requests that come at about the same time together: a GPU takes hardly longer for 64 than for one.

Whoever comes while the model runs waits for the next run, which takes all that have come by then. Before a run, the first waits
for the others that are being read, up to a window; a request that is alone waits for nobody.
"""

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from components.bundle.model import Answers, Classifier
from components.classifier.images import Pixels

MAX_PICTURES = 256
"""Of one run; a single request may have more, and then runs alone, in parts."""
MAX_TOGETHER = 16
"""Pictures of small requests in one run on the CPU, up to which a model's answers are the same bits as alone (loaded_model.py)."""


class _Turn:
    """A request's pictures, and what becomes of them; its thread waits for `woken`, then leads a run unless it has an outcome."""

    __slots__ = ("answers", "classifier", "error", "images", "woken")

    def __init__(self, classifier: Classifier, images: Pixels) -> None:
        self.classifier, self.images = classifier, images
        self.answers: Answers | None = None
        self.error: BaseException | None = None
        self.woken = threading.Event()


class Batcher:
    """Gathers the pictures of several threads into runs of the model."""

    def __init__(self, window: float, coming: Callable[[], int], ran: Callable[[int], object] = lambda number: None) -> None:
        """`window`: seconds; `coming`: how many requests are being worked on now; `ran` hears of each run's number of pictures."""
        self._window, self._coming, self._ran = window, coming, ran
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._waiting: deque[_Turn] = deque()
        self._led = False

    def answer(self, classifier: Classifier, images: Pixels) -> Answers:
        """Answer as `classifier.answer` does, in one run with the pictures of other threads; raises what the run raises."""
        turn = _Turn(classifier, images)
        with self._lock:
            self._waiting.append(turn)
            leads, self._led = not self._led, True
            self._came.notify()
        if not leads:
            turn.woken.wait()
        if turn.answers is None and turn.error is None:
            self._lead(turn)
        if turn.error is not None:
            raise turn.error
        assert turn.answers is not None
        return turn.answers

    def _lead(self, first: _Turn) -> None:
        """Run the model for `first`, which stands at the head of the queue, and for who stands behind it; then pass the lead on."""
        with self._lock:
            self._came.wait_for(self._complete, self._window)
            turns = self._take(first)
        try:
            for turn, answers in zip(turns, run_together(first.classifier, [turn.images for turn in turns]), strict=True):
                turn.answers = answers
        except BaseException as error:  # noqa: BLE001 - raised again where each waits
            for turn in turns:
                turn.error = error
        finally:
            with self._lock:
                self._led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].woken.set()
            for turn in turns:
                turn.woken.set()
        self._ran(sum(len(turn.images) for turn in turns))

    def _complete(self) -> bool:
        return len(self._waiting) >= self._coming() or sum(len(turn.images) for turn in self._waiting) >= MAX_PICTURES

    def _take(self, first: _Turn) -> list[_Turn]:
        turns = [self._waiting.popleft()]
        number = len(first.images)
        while self._waiting and self._waiting[0].classifier is first.classifier:
            number += len(self._waiting[0].images)
            if number > MAX_PICTURES:
                break
            turns.append(self._waiting.popleft())
        return turns


def run_together(classifier: Classifier, requests: list[Pixels]) -> list[Answers]:
    """Answer the pictures of several requests in one run, each request as `classifier.answer` does; raises what the run raises."""
    answers = classifier.answer(requests[0] if len(requests) == 1 else np.concatenate(requests), MAX_PICTURES)
    found: list[Answers] = []
    start = 0
    for images in requests:
        part = slice(start, start + len(images))
        found.append(Answers(answers.probabilities[part], None if answers.familiarity is None else answers.familiarity[part]))
        start = part.stop
    return found
