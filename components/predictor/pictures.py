"""Encoded pictures in requests: base64 in its usual forms, and decoding within the limits."""

import binascii
import re

from components.classifier import images
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels

_DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w.+=-]+)*;base64,", re.ASCII | re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/", "\r\n\t")
_REQUEST_FACTOR = 4


class PictureReader:
    """Decodes the pictures of one request, and refuses the one that goes beyond what a request may hold.

    A picture may have `max_pixels` pixels, all together four times as many: a few kilobytes of PNG can hold billions.
    """

    def __init__(self, spec: ImageSpec, max_pixels: int) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._left = _REQUEST_FACTOR * max_pixels

    def read(self, data: bytes, where: str) -> Pixels:
        """Decode one picture to what the model takes; raises RequestError that starts with `where`."""
        if self._left <= 0:
            raise RequestError(
                f"{where}: the pictures of this request have more than {_REQUEST_FACTOR * self._max_pixels} pixels; "
                "send several requests or smaller pictures",
                413,
            )
        try:
            pixels = images.decode(data, min(self._max_pixels, self._left))
        except ImageError as error:
            raise RequestError(f"{where}: {_without_library_text(str(error))}") from error
        self._left -= pixels.shape[0] * pixels.shape[1]
        return images.prepare(pixels, self._spec)


def decode_base64(text: object, where: str) -> bytes:
    """Decode base64: standard or URL-safe alphabet, with or without padding, line breaks and a data URI's prefix.

    Raises RequestError that starts with `where` for everything else.
    """
    if type(text) is not str:
        raise RequestError(f"{where}: b64 must be a string of base64")
    if not text:
        raise RequestError(f"{where}: b64 is empty")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return _decode_unusual(text, where)


def _decode_unusual(text: str, where: str) -> bytes:
    prefix = _DATA_URI.match(text)
    bare = text[prefix.end() :] if prefix else text
    bare = bare.translate(_URL_SAFE).rstrip("=")
    if " " in bare:
        raise RequestError(f"{where}: b64 holds spaces where '+' may have been; send it as JSON, not as a form")
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError as error:
        raise RequestError(f"{where}: b64 is not base64 of a picture's bytes") from error


def _without_library_text(message: str) -> str:
    """Leave out what a decoder said in its own words: it is of no use to a client."""
    return "the picture is cut or damaged" if message.startswith("the picture is cut or damaged") else message
