"""The short way of small plain pictures: the same pixels as the long way, and nothing that the long way would refuse."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.classifier import decode as decoding
from components.classifier.decode import Picture, decode_picture
from components.classifier.errors import ImageError
from components.classifier.plain import MAX_PIXELS, decode_plain
from tests.classifier import variants

ALL = 10**9
LOOKS = st.sampled_from(["noise", "smooth", "black", "white", "rows"])
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def long_way(data: bytes) -> Picture | str:
    """What decode.py makes of a picture without the short way: the picture, or why it is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode_plain", lambda data, limit: None)
        try:
            return decode_picture(data)
        except ImageError as error:
            return str(error)


def same(data: bytes) -> bool:
    """Whether a picture is plain; fails where it is, and the long way has other pixels or none."""
    plain = decode_plain(data, ALL)
    if plain is not None:
        other = long_way(data)
        assert isinstance(other, Picture), other
        assert plain[1] == other.format
        assert other.peak is None
        assert plain[0].shape == other.pixels.shape
        assert plain[0].dtype == other.pixels.dtype
        assert plain[0].tobytes() == other.pixels.tobytes()
    return plain is not None


def picture(look: str, shape: tuple[int, int], channels: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Pixels, uint8 (H, W, channels), without the last axis where there is one channel."""
    rng, full = np.random.default_rng(seed), (*shape, channels)
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = {
        "noise": lambda: rng.integers(0, 256, full),
        "smooth": lambda: np.stack([(y * 3 + x * (c + 1)) % 256 for c in range(channels)], -1),
        "black": lambda: np.zeros(full),
        "white": lambda: np.full(full, 255),
        "rows": lambda: rng.integers(0, 256, full) * (rng.integers(0, 2, (shape[0], 1, 1))),
    }[look]()
    return pixels.astype(np.uint8)[..., 0] if channels == 1 else pixels.astype(np.uint8)


def saved(pixels: np.ndarray[Any, Any], form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def png(
    data: bytes, colour: int = 0, size: tuple[int, int] = (8, 8), beside: tuple[tuple[bytes, bytes], ...] = (), pieces: int = 1
) -> bytes:
    """A PNG of 8 bits around zlib data, with chunks before and behind it; the data in so many chunks."""
    parts = [data[at : at + -(-len(data) // pieces)] for at in range(0, len(data), -(-len(data) // pieces))]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *size, 8, colour, 0, 0, 0)),
        *beside,
        *((b"IDAT", part) for part in parts),
        *beside,
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)


ROWS = b"".join(b"\0" + bytes([row]) * 8 for row in range(8))


@settings(max_examples=500, deadline=None)
@given(LOOKS, SHAPES, st.sampled_from([1, 2, 3, 4]), st.integers(0, 9), st.integers(0, 99))
def test_plain_pngs_of_pillow_have_the_same_pixels_by_the_short_way(
    look: str, shape: tuple[int, int], channels: int, level: int, seed: int
) -> None:
    assert same(saved(picture(look, shape, channels, seed), "PNG", compress_level=level))


@settings(max_examples=300, deadline=None)
@given(LOOKS, SHAPES, st.sampled_from([1, 3, 4]), st.integers(0, 9), st.integers(0, 4))
def test_plain_pngs_of_other_encoders_have_the_same_pixels_by_the_short_way(
    look: str, shape: tuple[int, int], channels: int, level: int, strategy: int
) -> None:
    pixels = picture(look, shape, channels)
    options = [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, strategy]
    assert same(bytes(cv2.imencode(".png", pixels, options)[1]))
    assert same(bytes(imagecodecs.png_encode(pixels, level=level)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0, 2, 4, 6]), SHAPES, st.integers(1, 5), st.randoms(use_true_random=False))
def test_rows_of_any_filter_in_any_number_of_chunks_have_the_same_pixels(
    colour: int, shape: tuple[int, int], pieces: int, rng: random.Random
) -> None:
    height, width = shape
    rows = b"".join(bytes([rng.randrange(5)]) + rng.randbytes(width * {0: 1, 2: 3, 4: 2, 6: 4}[colour]) for _ in range(height))
    assert same(png(zlib.compress(rows), colour, (width, height), pieces=pieces))


@settings(max_examples=300, deadline=None)
@given(LOOKS, SHAPES, st.sampled_from([1, 3]), st.integers(1, 100), st.integers(0, 2), st.integers(0, 3), st.booleans())
def test_baseline_jpegs_have_the_same_pixels_by_the_short_way(
    look: str, shape: tuple[int, int], channels: int, quality: int, subsampling: int, restarts: int, comment: bool
) -> None:
    options: dict[str, Any] = {"quality": quality, "subsampling": subsampling, "restart_marker_rows": restarts}
    data = saved(picture(look, shape, channels), "JPEG", **options, **({"comment": b"by hand"} if comment else {}))
    assert same(data) or data.count(b"\xff\xda") > 1
    assert same(bytes(cv2.imencode(".jpg", picture(look, shape, channels), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]))


def test_every_kind_of_picture_that_is_called_plain_has_the_same_pixels() -> None:
    plain = [variant.name for variant in variants.every() if same(variant.data)]
    assert {"png", "jpeg"} == {name.split("-")[0] for name in plain}
    assert not [
        name for name in plain if any(word in name for word in ("16", "palette", "interlace", "trns", "cmyk", "progressive", "exif"))
    ]


def _damaged(data: bytes, rng: random.Random) -> Iterator[bytes]:
    for at in rng.sample(range(len(data)), min(len(data), 60)):
        yield data[:at]
        yield data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        yield data[:at] + rng.randbytes(2) + data[at + rng.randrange(2) :]
        yield data[:at] + bytes(len(data) - at) + b"\0"


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_damaged_picture_is_taken_that_the_long_way_refuses_or_reads_otherwise(form: str, channels: int) -> None:
    rng = random.Random(channels)
    damaged = [d for look in ("noise", "smooth", "rows") for d in _damaged(saved(picture(look, (21, 17), channels), form), rng)]
    taken = sum(same(data) for data in damaged)
    assert taken == 0 if form == "PNG" else taken < len(damaged) / 2  # JPEG has no checksums


def _rewritten(rng: random.Random) -> bytes:
    """A PNG whose checksums are right and whose content is not."""
    packed = zlib.compress(ROWS, rng.randrange(10))
    at = rng.randrange(1, len(packed))
    packed = rng.choice([packed[:at], packed[:at] + rng.randbytes(1) + packed[at + 1 :], packed + rng.randbytes(9), packed[:-4]])
    beside = rng.choice(
        [(), ((b"gAMA", b"\0"),), ((b"tEXt", b"no end"),), ((b"tRNS", b"\0\1"),), ((b"acTL", bytes(8)),), ((b"PLTE", bytes(6)),)]
    )
    return png(packed, rng.choice([0, 0, 2]), (8, rng.choice([7, 8, 9])), beside, rng.randint(1, 3))


def test_no_png_of_wrong_content_is_taken_that_the_long_way_refuses_or_reads_otherwise() -> None:
    rng = random.Random(1)
    taken = sum(same(_rewritten(rng)) for _ in range(1500))
    assert 0 < taken < 750


@pytest.mark.parametrize("rows", [0, 1, 4, 7])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_compressed_pixels_end_too_early_is_refused_by_both_ways(rows: int, interlaced: bool) -> None:
    data = png(zlib.compress(ROWS[: 9 * rows]))
    if interlaced:
        whole = variants.png(np.full((8, 8, 1), 9), 0, 8, interlace=True)
        assert isinstance(long_way(whole), Picture)
        at = whole.index(b"IDAT")
        (size,) = struct.unpack_from(">I", whole, at - 4)
        raw = zlib.decompress(whole[at + 4 : at + 4 + size])
        data = png(zlib.compress(raw[: -9 * (8 - rows)] if rows else b""))
        data = data[:28] + b"\1" + struct.pack(">I", zlib.crc32(data[12:28] + b"\1")) + data[33:]
    assert decode_plain(data, ALL) is None
    assert "cut or damaged" in str(long_way(data))


def test_a_whole_png_whose_last_rows_are_black_is_taken_by_both_ways() -> None:
    black = png(zlib.compress(ROWS[:36] + bytes(36)))
    assert same(black)
    for pixels in (np.zeros((13, 19, 1)), np.eye(13, 19)[..., None] * 200):
        assert isinstance(long_way(variants.png(pixels.astype(np.uint8), 0, 8, interlace=True)), Picture)


def test_a_picture_that_costs_more_than_is_allowed_is_left_to_the_long_way() -> None:
    small, wide = saved(picture("noise", (50, 40), 1), "PNG"), saved(picture("black", (MAX_PIXELS // 100 + 1, 100), 1), "PNG")
    assert decode_plain(small, 2000) is not None
    assert decode_plain(small, 1999) is None
    assert decode_plain(wide, ALL) is None
    photo = saved(picture("smooth", (50, 40), 3), "JPEG")
    assert decode_plain(photo, 2200) is not None
    assert decode_plain(photo, 2199) is None


def test_what_pillow_and_opencv_write_takes_the_short_way() -> None:
    for pixels in (picture("smooth", (28, 28), 1), picture("noise", (64, 64), 3), picture("smooth", (32, 32), 4)):
        assert decode_plain(saved(pixels, "PNG"), ALL) is not None
        assert decode_plain(bytes(cv2.imencode(".png", pixels)[1]), ALL) is not None
    assert decode_plain(saved(picture("smooth", (224, 224), 3), "JPEG", quality=85), ALL) is not None
