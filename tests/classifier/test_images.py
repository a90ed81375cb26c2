"""One way from bytes to pixels: odd pictures keep their meaning, damaged ones are refused, nothing else is ever raised."""

import base64
import io
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.classifier import images
from components.classifier.decode import WORK, Pixels, decode, decode_picture, is_picture
from components.classifier.errors import ImageError
from components.classifier.images import ImageSpec, brightness_and_contrast, from_bytes, grey, prepare
from tests.ingest.cases import encode, pixels, png, png_bomb, png_chunk

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")  # pytest takes away the filter that images.py sets

RED, BLUE, WHITE = [255, 0, 0], [0, 0, 255], [255, 255, 255]
DEEP = np.array([[0, 300, 9000, 40000, 65535]], np.uint16)
ARITHMETIC = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/"
    "2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAAQABADASIAAhEBAxEB/8wA"
    "CgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AM1AKLzOCPeV75nphbXwZSbgHXdiVgSDSqH4qIa9rGJMduA0RuQlce0WjJfoR8dY8MEi8b+0U7Ha/jUSEuFJLtHc"
    "BlaNSe4d0F7R3vGdo/aSJT7ID/qR6b4PgsecO5TMy+qgYTdK2BT0r+RstJ8GLClrTADIaRcSo9YvilUEztMQFCc57o1JQpEz8nvZxfD/2Q=="
)


def sixteen(array: np.ndarray) -> bytes:
    return array.astype(">u2").tobytes()


def test_content_decides_the_format() -> None:
    picture = pixels(3)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(decode(encode(picture, kind)), picture)
    np.testing.assert_array_equal(decode(encode(picture, "WEBP", lossless=True)), picture)
    for kind in ("JPEG", "GIF"):
        assert decode(encode(picture, kind)).shape == picture.shape


@pytest.mark.parametrize(
    "data",
    [
        encode(DEEP),
        encode(DEEP, "TIFF"),
        encode(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
        png(5, 1, 16, 0, [sixteen(DEEP)]),
        b"P5 5 1 65535\n" + sixteen(DEEP),
    ],
    ids=["png", "tiff", "tiff-big-endian", "raw-png", "pgm"],
)
def test_sixteen_bit_grey_keeps_its_differences(data: bytes) -> None:
    np.testing.assert_array_equal(decode(data)[0, :, 0], np.round(DEEP[0] / 257))


def test_sixteen_bit_colour_is_within_one() -> None:
    colour = np.stack([DEEP, DEEP[:, ::-1], DEEP // 2], axis=-1)
    found = decode(png(5, 1, 16, 2, [sixteen(colour)])).astype(int)
    assert np.abs(found - colour / 257).max() <= 1


def test_fewer_bits_are_spread_over_the_whole_range() -> None:
    assert decode(png(4, 1, 2, 0, [bytes([0b00011011])]))[0, :, 0].tolist() == [0, 85, 170, 255]
    assert decode(png(8, 1, 1, 0, [bytes([0b01010101])]))[0, :2, 0].tolist() == [0, 255]
    assert decode(encode(Image.new("1", (9, 3), 1), "TIFF")).tolist() == [[[255]] * 9] * 3


def test_transparent_pixels_lie_on_white() -> None:
    palette = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + png_chunk(b"tRNS", bytes([0, 255]))
    for data in (
        encode(Image.fromarray(np.array([[[9, 9, 9, 0], [0, 0, 255, 255]]], np.uint8))),
        png(2, 1, 8, 3, [bytes([0, 1])], palette),
        encode(Image.open(io.BytesIO(png(2, 1, 8, 3, [bytes([0, 1])], palette))), "GIF"),
        png(2, 1, 8, 2, [bytes([0, 0, 0, 0, 0, 255])], png_chunk(b"tRNS", bytes(6))),
    ):
        assert decode(data)[0].tolist() == [WHITE, BLUE]
    half = encode(Image.fromarray(np.array([[[0, 0, 0, 128]]], np.uint8)))
    assert decode(half)[0, 0].tolist() == [127] * 3


def test_grey_stays_grey_with_transparency() -> None:
    for data in (
        png(2, 1, 8, 4, [bytes([100, 255, 0, 0])]),
        png(2, 1, 8, 0, [bytes([100, 0])], png_chunk(b"tRNS", bytes(2))),
    ):
        assert decode(data).tolist() == [[[100], [255]]]
    deep = png(2, 1, 16, 0, [sixteen(np.array([25700, 7]))], png_chunk(b"tRNS", struct.pack(">H", 7)))
    assert decode(deep).tolist() == [[[100], [255]]]


def test_other_colour_spaces_become_rgb() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):  # Pillow writes the JPEG inverted, as Adobe does
        np.testing.assert_allclose(decode(encode(cmyk, kind))[0, 0], RED, atol=3)
    assert decode(encode(Image.new("P", (4, 4)))).shape == (4, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_applied(orientation: int) -> None:
    turn = Image.Transpose
    undo = [
        None,
        turn.FLIP_LEFT_RIGHT,
        turn.ROTATE_180,
        turn.FLIP_TOP_BOTTOM,
        turn.TRANSPOSE,
        turn.ROTATE_90,
        turn.TRANSVERSE,
        turn.ROTATE_270,
    ]
    upright = Image.fromarray(pixels(2, size=(12, 20)))
    how = undo[orientation - 1]
    stored = upright if how is None else upright.transpose(how)
    tag = Image.Exif()
    tag[0x0112] = orientation
    np.testing.assert_array_equal(decode(encode(stored, "PNG", exif=tag)), np.asarray(upright))
    np.testing.assert_array_equal(decode(encode(stored, "WEBP", lossless=True, exif=tag)), np.asarray(upright))
    close = decode(encode(stored, "JPEG", quality=98, subsampling=0, exif=tag)).astype(int) - np.asarray(upright)
    assert np.abs(close).mean() < 3
    deep = Image.fromarray(DEEP.repeat(3, axis=0))
    stored = deep if how is None else deep.transpose(how)
    np.testing.assert_array_equal(decode(encode(stored, "PNG", exif=tag))[:, :, 0], np.round(np.asarray(deep) / 257))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode(data)[0, 0], RED, atol=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is not an image\n", "not a picture in a known format"),
        (b"\0" * 100, "not a picture in a known format"),
        (encode(DEEP.astype(np.int32), "TIFF"), "32-bit integer"),
        (encode(DEEP.astype(np.float32), "TIFF"), "floating point"),
        (encode(Image.new("LAB", (4, 4)), "TIFF"), "LAB"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing, which has no pixels"),
    ],
)
def test_what_has_no_certain_meaning_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_twelve_bits_are_refused() -> None:
    tags = [
        (256, 3, 1, 4),
        (257, 3, 1, 1),
        (258, 3, 1, 12),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 122),
        (277, 3, 1, 1),
        (278, 3, 1, 1),
    ]
    head = struct.pack("<2sHIH", b"II", 42, 8, 9) + b"".join(struct.pack("<HHII", *tag) for tag in [*tags, (279, 4, 1, 6)])
    with pytest.raises(ImageError, match="12 bits"):
        decode(head + struct.pack("<I", 0) + bytes([0, 0, 0, 255, 255, 255]))


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"more (pixels )?than the limit"):
        decode(png_bomb(20_000))
    with pytest.raises(ImageError, match="16x16 pixels, more than the limit of 255"):
        decode(encode(pixels(0)), max_pixels=255)


KINDS = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("GIF", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]
KINDS += [("TIFF", {}), ("PPM", {}), ("AVIF", {})]


@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_a_cut_picture_is_refused_and_never_filled_up(kind: str, how: dict) -> None:
    data = encode(pixels(1, size=(24, 24)), kind, **how)
    whole = decode(data)
    for length in range(0, len(data), 7):
        try:
            found = decode(data[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(found, whole)  # only bytes that say nothing were cut off


@pytest.mark.parametrize(("kind", "how"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})])
def test_an_end_overwritten_by_zeros_is_found(kind: str, how: dict) -> None:
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), kind, **how)
    for length in (len(data) // 3, len(data) // 2, len(data) - 200):
        with pytest.raises(ImageError):
            decode(data[:length] + bytes(len(data) - length))


def test_every_damaged_byte_of_a_png_is_found() -> None:
    data = encode(pixels(1))
    for place in range(33, len(data) - 12, 11):  # between the header and the end mark
        with pytest.raises(ImageError):
            decode(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])


def test_padding_and_motion_photos_do_no_harm() -> None:
    picture = encode(pixels(1), "JPEG")
    np.testing.assert_array_equal(decode(picture + bytes(500)), decode(picture))
    np.testing.assert_array_equal(decode(picture + b"ftypmp42" + b"\xff\xda" * 40), decode(picture))


SEEDS = [encode(pixels(1), kind, **how) for kind, how in KINDS] + [encode(DEEP), encode(Image.new("P", (9, 9)))]


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_pixels_or_an_image_error(data: bytes) -> None:
    check_decode(data)


@given(st.sampled_from(SEEDS), st.integers(0), st.binary(min_size=1, max_size=12), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_damage_gives_pixels_or_an_image_error(data: bytes, place: int, patch: bytes, insert: bool) -> None:
    place %= len(data)
    check_decode(data[:place] + patch + data[place + (0 if insert else len(patch)) :])


def check_decode(data: bytes) -> None:
    assert is_picture(data) in (True, False)
    try:
        found = decode(data)
    except ImageError as error:
        message = str(error)
    else:
        message = "one line"
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert found.shape[2] in (1, 3)
    assert len(message.splitlines()) == 1


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_prepare_gives_the_shape_asked_for(h: int, w: int, c: int, height: int, width: int, channels: int) -> None:
    found = prepare(np.full((h, w, c), 77, np.uint8), ImageSpec(height, width, channels))
    assert found.shape == (height, width, channels)
    assert found.flags.c_contiguous
    assert (found == 77).all()


def test_shrinking_averages_and_does_not_skip() -> None:
    stripes = np.zeros((32, 32, 1), np.uint8)
    stripes[:, ::2] = 255
    shrunk = prepare(stripes, ImageSpec(8, 8, 1))
    assert np.abs(shrunk.astype(int) - 128).max() < 30


def test_from_bytes_is_decode_and_prepare() -> None:
    data, spec = encode(pixels(2)), ImageSpec(7, 9, 1)
    np.testing.assert_array_equal(from_bytes(data, spec), prepare(decode(data), spec))
    assert str(spec) == "7x9x1"


@pytest.mark.parametrize("quality", [10, 75, 100])
@pytest.mark.parametrize("side", [300, 1000, 2400])
@pytest.mark.parametrize("level", [0, 255])
def test_a_blank_webp_is_not_damaged_for_the_zeros_at_its_end(side: int, level: int, quality: int) -> None:
    data = encode(Image.new("RGB", (side, side), (level, level, level)), "WEBP", quality=quality)
    assert abs(decode(data).astype(int) - level).max() <= 2


@pytest.mark.parametrize("shape", [(300, 28, 28, 1), (5, 224, 224, 3), (1, 8, 8, 1), (0, 8, 8, 3)])
def test_brightness_and_contrast_are_mean_and_deviation_of_each_picture_however_many_are_measured_together(
    shape: tuple[int, int, int, int],
) -> None:
    many = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    brightness, contrast = brightness_and_contrast(many)
    assert brightness.dtype == contrast.dtype == np.float32
    np.testing.assert_allclose(brightness, many.mean(axis=(1, 2, 3), dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(contrast, many.std(axis=(1, 2, 3), dtype=np.float64), rtol=1e-5)
    whole = many.astype(np.float32).reshape(len(many), -1 if len(many) else 192)
    np.testing.assert_array_equal(brightness, whole.mean(axis=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "wanted"), [((60, 90), (16, 16)), ((90, 60), (16, 8)), ((300, 20), (9, 33)), ((20, 300), (40, 7)), ((50, 50), (50, 9))]
)
def test_large_pictures_are_prepared_in_parts_to_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, channels: int, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    picture = pixels(5, 1, size, channels).reshape(*size, channels)
    whole = [prepare(picture, ImageSpec(*wanted, taken)).tobytes() for taken in (1, 3)], grey(picture).tobytes()
    monkeypatch.setattr(images, "LARGE", 500)
    assert ([prepare(picture, ImageSpec(*wanted, taken)).tobytes() for taken in (1, 3)], grey(picture).tobytes()) == whole


def test_a_big_endian_bigtiff_is_called_what_it_is() -> None:
    data = io.BytesIO()
    tifffile.imwrite(data, pixels(0), byteorder=">", bigtiff=True, photometric="rgb")
    with pytest.raises(ImageError, match=r"is a big-endian BigTIFF, which is not read; convert it by tiffcp \(of libtiff\), or"):
        decode(data.getvalue())


def test_pixels_of_another_format_are_not_taken_for_a_second_page() -> None:
    black = np.zeros((8, 4, 3), np.uint8)
    black[:, 3, 2] = 254  # so the rows of this BMP, of twelve bytes, lie as the tags of a TIFF's second page would
    assert decode_picture(encode(black, "BMP")).unread == ()


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(("subfile", "told"), [(0, ("pages",)), (1, ()), (4, ()), (None, ())])
def test_further_pages_of_a_tiff_are_noticed_but_no_copies_and_masks(bigtiff: bool, subfile: int | None, told: tuple[str, ...]) -> None:
    data = io.BytesIO()
    with tifffile.TiffWriter(data, bigtiff=bigtiff) as writer:
        writer.write(pixels(0), photometric="rgb")
        if subfile is not None:
            page = pixels(1)[..., 0] > 100 if subfile == 4 else pixels(1)
            writer.write(page, photometric="minisblack" if subfile == 4 else "rgb", subfiletype=subfile)
    picture = decode_picture(data.getvalue())
    assert picture.unread == told
    np.testing.assert_array_equal(picture.pixels, pixels(0))


def test_an_arithmetic_coded_jpeg_is_read() -> None:
    """Pixels as those of the same JPEG in Huffman code, from which libjpeg-turbo's jpegtran made it."""
    plain = encode(pixels(1), "JPEG", quality=90)
    np.testing.assert_array_equal(decode(base64.b64decode(ARITHMETIC)), decode(plain))


def test_a_picture_is_made_small_while_its_memory_counts() -> None:
    held: list[int] = []

    def shrink(pixels: Pixels) -> Pixels:
        held.append(WORK._used[0])
        return pixels[:1, :2]

    assert decode_picture(encode(np.zeros((600, 700, 3), np.uint8)), then=shrink).pixels.shape == (1, 2, 3)
    assert held[0] >= 600 * 700 * 3
    assert decode_picture(encode(pixels(0)), then=shrink).pixels.shape == (1, 2, 3)
