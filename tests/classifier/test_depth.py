"""16 bits per sample: how many of them are used is said by `levels`, and what is not so is refused."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from components.classifier.decode import decode, decode_picture
from components.classifier.errors import ImageError
from tests.classifier import variants

Array = np.ndarray[Any, Any]


def of_bits(bits: int, channels: int) -> Array:
    """All depths from 0 to the brightest, uint16 (12, 17, channels)."""
    values = np.linspace(0, 2**bits - 1, 12 * 17 * channels).astype(np.uint16)
    return np.random.default_rng(bits).permutation(values).reshape(12, 17, channels)


def cv_png(values: Array) -> bytes:
    return cv2.imencode(".png", values[..., ::-1] if values.shape[2] == 3 else values)[1].tobytes()


def tiff(values: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    colour = values.shape[2] == 3
    tifffile.imwrite(buffer, values if colour else values[..., 0], **{"photometric": "rgb" if colour else "minisblack"} | options)
    return buffer.getvalue()


FILES = {
    "png": cv_png,
    "png interlaced": lambda values: variants.png(values, 2 if values.shape[2] == 3 else 0, 16, interlace=True),
    "tiff": tiff,
    "tiff big endian": lambda values: tiff(values, byteorder=">"),
    "tiff deflate": lambda values: tiff(values, compression="zlib", predictor=True),
    "tiff lzw big endian": lambda values: tiff(values, compression="lzw", byteorder=">"),
    "tiff in tiles": lambda values: tiff(values, tile=(16, 16), compression="zlib"),
    "tiff in strips": lambda values: tiff(values, rowsperstrip=5),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("kind", FILES)
def test_levels_spread_the_values_that_are_used_over_8_bits(kind: str, bits: int, channels: int) -> None:
    values = of_bits(bits, channels)
    data = FILES[kind](values)
    expected = np.round(values * (255 / (2**bits - 1)))
    assert np.array_equal(decode(data, levels=bits), expected)
    assert decode(data).max() == (2**bits - 1 + 128) // 257 if channels == 1 else (2**bits - 1) >> 8
    assert decode_picture(data).peak == values.max()


@pytest.mark.parametrize("kind", FILES)
def test_levels_change_nothing_in_files_of_8_bits(kind: str) -> None:
    values = of_bits(8, 3).astype(np.uint8)
    data = variants.png(values, 2, 8) if kind.startswith("png") else tiff(values)
    assert np.array_equal(decode(data, levels=12), values)
    assert decode_picture(data, levels=12).peak is None


@pytest.mark.parametrize("channels", [1, 3])
def test_values_above_the_levels_are_refused_and_named(channels: int) -> None:
    values = of_bits(12, channels)
    with pytest.raises(ImageError, match=r"values up to 4,095, above the 1,023 of levels=10; give the levels that it has"):
        decode(cv_png(values), levels=10)


@pytest.mark.parametrize("colour_type", [4, 6])
def test_transparency_of_16_bits_is_refused_where_levels_are_given(colour_type: int) -> None:
    values = of_bits(12, {4: 2, 6: 4}[colour_type])
    data = variants.png(values, colour_type, 16)
    decode(data)
    with pytest.raises(ImageError, match="levels=12 cannot scale; save it as grey or RGB without transparency"):
        decode(data, levels=12)


def test_a_pgm_says_itself_what_its_brightest_value_is() -> None:
    values = of_bits(12, 1)[..., 0]
    data = b"P5\n17 12\n4095\n" + values.astype(">u2").tobytes()
    assert np.array_equal(decode(data, levels=10), decode(data))
    assert np.abs(decode(data)[..., 0] - np.round(values / 4095 * 255)).max() <= 1
    assert decode_picture(data).peak is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("levels", [12, 16])
def test_white_is_zero_stays_so_when_the_picture_is_turned(orientation: int, levels: int) -> None:
    values = of_bits(levels, 1)
    data = tiff(values, photometric="miniswhite", byteorder="<", extratags=[(274, "H", 1, orientation, False)])
    upright = 255 - np.round(values * (255 / (2**levels - 1))).astype(np.uint8)
    assert np.array_equal(decode(data, levels=levels), variants.turned(upright, orientation))


def test_a_large_picture_is_stretched_piece_by_piece() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (1200, 1100, 3), dtype=np.uint16)
    assert np.array_equal(decode(cv_png(values), levels=12), np.round(values * (255 / 4095)))


def test_jpeg_2000_of_16_bits_has_levels_too() -> None:
    values = of_bits(12, 1)
    buffer = io.BytesIO()
    Image.fromarray(values[..., 0]).save(buffer, "JPEG2000")
    picture = decode_picture(buffer.getvalue(), levels=12)
    assert picture.peak == values.max()
    assert np.array_equal(picture.pixels, np.round(values * (255 / 4095)))
