"""What a predict request holds, whichever protocol it came by: pictures as numbers or encoded, options, and the limits on them."""

import binascii
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from components.classifier import images
from components.classifier.decode import CostlyPicture, decode_picture, is_picture
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels
from components.classifier.metadata import Unread
from components.predictor.errors import Disconnected, HandOver
from components.predictor.loaded_model import LoadedModel

_MAX_BATCH_BYTES = 32 * 1024 * 1024
_UNCHECKED_BYTES = 64 * 1024
"""JSON up to this size is parsed without counting its lists first."""
_SPARE_LISTS = 1000
_QUOTES = 8
"""Of an object: a picture's own has two names and two strings at most."""
_MAX_PIXELS_FACTOR = 4
_SLICE = 64 * 1024
"""Of base64 and JSON, worked on at a time, for a fifth of a millisecond in which no other thread can run; a multiple of 4."""
_INTEGERS = {int}
_NUMBERS = ({float}, {int, float})
_DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w.+=-]+)*;base64,", re.ASCII | re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/", "\r\n\t")
_ID_PREFIX, _ID_NUMBERS = os.urandom(6).hex(), count(1)

Slow = Callable[[bytes, ImageSpec, int, Callable[[], bool]], tuple[Pixels, int, tuple[Unread, ...]]]
"""Decodes a picture that takes long: bytes, what the model takes, most pixels, whether the client is gone.

Returns what the model takes, the picture's own number of pixels, and what of its metadata cannot be read.
"""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may hold, and how much of it the thread that has it may do."""

    max_images: int
    max_pixels: int
    """Of one picture; all pictures of a request may have four times as many."""
    images_here: int
    """A request of more pictures is handed over to another thread."""
    cost_here: int
    """A picture that costs more to decode (decode.cost) is decoded by `slow`, or the request is handed over."""
    slow: Slow | None = None
    gone: Callable[[], bool] = bool
    """Whether the client has left."""
    tell_unread: Callable[[Unread], object] = bool
    """Is told of each picture what of its metadata cannot be read."""


Original = bytes | None
"""A picture's bytes as they came; None where an array came."""


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Pictures, uint8 (N, H, W, C) as the model takes them, and what is asked about them."""

    images: Pixels
    originals: list[Original]
    return_probabilities: bool = False
    threshold: float | None = None
    """Confidence below which a prediction needs review; None takes the server's setting."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The model's output for a request: per picture the likeliest class' index, its probability, and whether it needs review.

    `probabilities` are float32 (N, K). `unfamiliar` is None, and `familiarity` empty, for a version that cannot say it.
    """

    model: LoadedModel
    probabilities: npt.NDArray[np.float32]
    classes: list[int]
    confidence: list[float]
    needs_review: list[bool]
    familiarity: list[float]
    unfamiliar: list[bool] | None

    @property
    def labels(self) -> list[str]:
        """The likeliest class' name per picture."""
        names = self.model.classes
        return [names[index] for index in self.classes]


def new_id() -> str:
    """Make an id for a request that came without one."""
    return f"{_ID_PREFIX}-{next(_ID_NUMBERS):x}"


def load_json(body: bytes, spec: ImageSpec, limits: RequestLimits) -> dict[str, Any]:
    """Parse a JSON object.

    Raises RequestError, with the place of the mistake, for anything else.
    """
    if not body:
        raise RequestError("the body is empty; send a JSON object")
    if len(body) > _UNCHECKED_BYTES:
        _check_structure(body, spec, limits)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(_what_instead(body) or f"the body is not valid JSON (line {error.lineno}, column {error.colno})") from error
    if type(document) is not dict:
        raise RequestError("the body must be a JSON object")
    return document


def _what_instead(body: bytes) -> str:
    """Name a body that is something else than JSON, and what is wanted; "" when it is not known."""
    wanted = 'send JSON as UTF-8: {"instances": [{"b64": "…"}]} with the picture in base64'
    if body.startswith(b"\xef\xbb\xbf"):
        return "the body begins with a byte order mark; save or send the JSON as UTF-8 without it"
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{")):
        return f"the body is UTF-16 text; {wanted}"
    if body.startswith(b"--") and b"form-data" in body[:1000].lower():
        return f"the body is a multipart form; {wanted}"
    if is_picture(body):
        return f"the body is a picture itself; {wanted}"
    is_text = body[0] in b"\t\n\r" or 0x20 <= body[0] < 0x7F
    return "" if is_text else f"the body is binary data; {wanted}"


def _check_structure(body: bytes, spec: ImageSpec, limits: RequestLimits) -> None:
    """Refuse JSON that would take far more memory and time than its bytes: each `{}` or `[]` becomes 80 bytes, a name in an object 150.

    Pictures as nested lists have at most one list per pixel, and each value takes at least a digit and a comma.
    """
    limit = max_images(spec, limits.max_images)
    lists = min(limit * (1 + spec.height * (1 + spec.width)), len(body) // (2 * spec.channels + 2)) + _SPARE_LISTS
    objects = 2 * limit + _SPARE_LISTS
    quotes = _QUOTES * objects
    for at in range(0, len(body), _SLICE):
        lists -= body.count(b"[", at, at + _SLICE)
        objects -= body.count(b"{", at, at + _SLICE)
        quotes -= body.count(b'"', at, at + _SLICE)
        if lists < 0 or objects < 0 or quotes < 0:
            raise RequestError(
                f"the body holds more lists, objects or strings than pictures need, whose limit is {limit}; send several requests", 413
            )


def parse_options(parameters: Any, where: str) -> tuple[bool, float | None]:
    """Read `return_probabilities` and `threshold` of a JSON object; other names are left alone.

    Raises RequestError for values of another type, and for a threshold outside 0 to 1.
    """
    if parameters is None:
        return False, None
    if type(parameters) is not dict:
        raise RequestError(f"{where} must be an object")
    probabilities = parameters.get("return_probabilities", False)
    if type(probabilities) is not bool:
        raise RequestError("return_probabilities must be true or false")
    threshold = parameters.get("threshold")
    if threshold is None:
        return probabilities, None
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        raise RequestError("threshold must be a number from 0 to 1")
    return probabilities, float(threshold)


def max_images(spec: ImageSpec, limit: int) -> int:
    """How many pictures one request may hold: as set, or fewer where the model takes large ones."""
    return max(1, min(limit, _MAX_BATCH_BYTES // (spec.height * spec.width * spec.channels)))


def check_count(number: int, spec: ImageSpec, limits: RequestLimits) -> None:
    """Raise RequestError for no pictures, or for more than one request may hold, and HandOver for more than this thread may do."""
    if number == 0:
        raise RequestError("no pictures in the request; send at least one")
    if number > (limit := max_images(spec, limits.max_images)):
        raise RequestError(f"{number} pictures in one request, the limit is {limit}; send several requests", 413)
    if number > limits.images_here:
        raise HandOver


class PictureReader:
    """Decodes the encoded pictures of one request within its limits.

    One picture may have `max_pixels` pixels, all together four times as many: a few kilobytes of PNG can hold billions.
    """

    def __init__(self, spec: ImageSpec, limits: RequestLimits) -> None:
        self._spec = spec
        self._limits = limits
        self._max_pixels = limits.max_pixels
        self._left = _MAX_PIXELS_FACTOR * limits.max_pixels

    def read(self, data: bytes, where: str) -> Pixels:
        """Decode one picture to what the model takes.

        Raises RequestError that starts with `where`, HandOver where it is too much for this thread, and Disconnected.
        """
        if self._left <= 0:
            raise RequestError(
                f"{where}: the pictures of this request have more than {_MAX_PIXELS_FACTOR * self._max_pixels} pixels; "
                "send several requests or smaller pictures",
                413,
            )
        try:
            return self._decode(data, min(self._max_pixels, self._left))
        except ImageError as error:
            cut, told = "the picture is cut or damaged", str(error)  # without a decoder's own words, which do not help a client
            raise RequestError(f"{where}: {cut if told.startswith(cut) else told}") from error

    def _decode(self, data: bytes, max_pixels: int) -> Pixels:
        try:
            picture = decode_picture(data, max_pixels, self._limits.cost_here, self._spec.levels)
        except CostlyPicture:
            if self._limits.slow is None:
                raise HandOver from None
            if self._limits.gone():
                raise Disconnected from None
            prepared, number, unread = self._limits.slow(data, self._spec, max_pixels, self._limits.gone)
        else:
            number, unread = picture.pixels.shape[0] * picture.pixels.shape[1], picture.unread
            prepared = images.prepare(picture.pixels, self._spec)
        self._left -= number
        for what in unread:
            self._limits.tell_unread(what)
        return prepared


def decode_base64(text: object, where: str) -> bytes:
    """Decode base64: standard or URL-safe alphabet, with or without padding, line breaks and a data URI's prefix.

    Raises RequestError that starts with `where` for everything else.
    """
    if type(text) is not str:
        raise RequestError(f"{where}: b64 must be a string of base64")
    if not text:
        raise RequestError(f"{where}: b64 is empty")
    try:
        return _decode_strict(text)
    except ValueError:
        return _decode_lenient(text, where)


def _decode_strict(text: str) -> bytes:
    """Decode in slices, between which other threads can run."""
    if len(text) <= _SLICE:
        return binascii.a2b_base64(text, strict_mode=True)
    parts = [binascii.a2b_base64(text[at : at + _SLICE], strict_mode=True) for at in range(0, len(text), _SLICE)]
    if any(len(part) != _SLICE // 4 * 3 for part in parts[:-1]):
        raise ValueError("padding before the end")
    return b"".join(parts)


def _decode_lenient(text: str, where: str) -> bytes:
    prefix = _DATA_URI.match(text)
    bare = text[prefix.end() :] if prefix else text
    bare = bare.translate(_URL_SAFE).rstrip("=")
    if " " in bare:
        raise RequestError(f"{where}: b64 holds spaces where '+' may have been; send it as JSON, not as a form")
    try:
        return _decode_strict(bare + "=" * (-len(bare) % 4))
    except ValueError as error:
        raise RequestError(f"{where}: b64 is not base64 of a picture's bytes") from error


def to_array(value: Any, shape: Sequence[int]) -> npt.NDArray[Any] | None:
    """Turn nested JSON lists of numbers into an array of `shape`; None when they have another shape or hold other things.

    Whole numbers from 0 to 255 become uint8, anything else float64. numpy.array is slower, and makes huge arrays from strings
    of unequal length.
    """
    level = [value]
    try:
        for size in shape:
            level = _flatten(level, size)
    except (TypeError, ValueError):
        return None
    kinds = set(map(type, level))
    if kinds == _INTEGERS:
        try:
            return np.frombuffer(bytes(level), np.uint8).reshape(shape)
        except ValueError:
            pass  # a number outside 0 to 255: the caller's check names it
    elif kinds not in _NUMBERS:
        return None
    return np.array(level, np.float64).reshape(shape)


def _flatten(level: list[Any], size: int) -> list[Any]:
    """Join lists of `size` items each into one; raises TypeError or ValueError for anything but such lists."""
    if size == 1:  # faster; a string of one letter passes too, and is refused as not a number
        return [item for (item,) in level]
    if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
        raise ValueError
    return list(chain.from_iterable(level))


def list_lengths(value: Any, depth: int = 6) -> list[int]:
    """Lengths along the first elements of nested lists, for messages."""
    lengths: list[int] = []
    while type(value) is list and len(lengths) < depth:
        lengths.append(len(value))
        value = value[0] if value else None
    return lengths
