"""Decoding: equal to independent decoders for every format, depth and layout, or refused by name; bounded in memory and time."""

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from components.classifier.decode import MAX_SCANS, WorkBudget, decode, decode_picture, is_picture
from components.classifier.errors import ImageError
from tests.classifier import variants
from tests.ingest.cases import png_chunk

VARIANTS = variants.every()
REFUSED = {  # what cannot be decoded rightly, by how the variant's name begins, and what the refusal says
    "png-rgb-16-trns": "16-bit colour with a transparent colour",
    "tiff-rgb-planar-16": "16-bit colour in separate planes",
    "tiff-grey-white-is-zero-16-be": "a TIFF of a kind that cannot be read",
    "tiff-grey-unassalpha-16": "a TIFF of a kind that cannot be read",
    "tiff-grey-assocalpha-16": "a TIFF of a kind that cannot be read",
    "tiff-grey-unspecified-16": "a TIFF of a kind that cannot be read",
    "tiff-grey-int8": "signed numbers",
    "tiff-grey-int16": "signed numbers",
    "tiff-grey-int32": "32-bit integer pixels",
    "tiff-grey-uint32": "32-bit integer pixels",
    "tiff-grey-float32": "floating point pixels",
    "tiff-grey-float": "a TIFF of a kind that cannot be read",
    "tiff-rgb-int": "a TIFF of a kind that cannot be read",
    "tiff-rgb-float": "a TIFF of a kind that cannot be read",
    "jpeg2000-jp2-3x16": "JPEG 2000 has colours of more than 8 bits",
    "jpeg2000-j2k-3x16": "JPEG 2000 has colours of more than 8 bits",
}


def test_there_are_enough_variants_and_no_name_comes_twice() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(names) >= 400
    assert len(set(names)) == len(names)
    assert all(any(name.startswith(prefix) for name in names) for prefix in REFUSED)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_kind_of_file_gives_the_pixels_that_its_specification_says_or_is_refused_by_name(variant: variants.Variant) -> None:
    reason = next((reason for prefix, reason in REFUSED.items() if variant.name.startswith(prefix)), "")
    if reason:
        with pytest.raises(ImageError, match=reason):
            decode(variant.data)
        return
    pixels = decode(variant.data)
    assert pixels.shape == variant.expected.shape
    assert np.abs(pixels.astype(int) - variant.expected.astype(int)).max() <= variant.tolerance


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.name.startswith("tiff-") and "orientation" not in v.name][::7], ids=str)
def test_the_tiffs_hold_what_tifffile_reads_in_them(variant: variants.Variant) -> None:
    stored = tifffile.imread(io.BytesIO(variant.data))
    assert stored.size in {variant.expected.size, variant.expected.size * 4 // 3, variant.expected.size * 2, variant.expected.size // 3}


def test_a_camera_s_raw_file_is_not_a_picture_and_says_what_to_do() -> None:
    thumbnail = variants.samples(3)
    assert np.array_equal(decode(variants.plain_tiff(thumbnail)), thumbnail)
    for tags in ({254: (4, [1]), 330: (4, [8])}, {50706: (1, [1, 4, 0, 0])}):
        data = variants.plain_tiff(thumbnail, tags)
        assert not is_picture(data)
        with pytest.raises(ImageError, match="raw file, of which only the thumbnail could be read; convert it"):
            decode(data)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of (tag, type, count, four bytes of value)."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in sorted(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


@pytest.mark.parametrize(
    "odd",
    [
        (0x213, 2, 2, b"1\0\0\0"),
        (0x11A, 2, 3, b"72\0\0"),
        (0x128, 2, 2, b"2\0\0\0"),
        (0x100, 2, 3, b"24\0\0"),
        (0x131, 7, 4, b"abcd"),
        (0x10F, 3, 1, b"\5\0\0\0"),
        (0x128, 3, 2, b"\2\0\2\0"),
        (0x8769, 4, 1, b"\xff\xff\xff\x7f"),
    ],
    ids=lambda entry: hex(entry[0]),
)
def test_odd_metadata_beside_a_rotation_tag_changes_nothing(odd: tuple[int, int, int, bytes]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(variants.samples(1)[..., 0]).save(buffer, "JPEG", quality=95)
    plain = buffer.getvalue()

    def with_exif(block: bytes) -> bytes:
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]

    turn = (0x112, 3, 1, struct.pack("<HH", 6, 0))
    upright = decode(plain)
    assert np.array_equal(decode(with_exif(exif(turn, odd))), variants.turned(upright, 6))
    assert np.array_equal(decode(with_exif(exif(odd))), upright)


@pytest.mark.parametrize("size", [100, 3 * 2**20])
def test_a_png_is_not_damaged_by_its_text_however_much_there_is(size: int) -> None:
    grey = variants.samples(1)
    text = b"Comment\0\0" + zlib.compress(b"x" * size)
    itxt = b"XML:com.adobe.xmp\0\0\0\0\0" + b"y" * size
    data = variants.png(grey, 0, 8, before={b"zTXt": text, b"iTXt": itxt, b"tEXt": b"Title\0" + b"z" * size})
    assert np.array_equal(decode(data), grey)


ODD_CHUNKS: list[tuple[bytes, bytes, tuple[str, ...]]] = [
    *((kind, b"", ()) for kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"bKGD", b"hIST", b"sPLT", b"tIME", b"acTL", b"fcTL", b"eXIf")),
    (b"iCCP", b"", ("profile",)),
    (b"iCCP", b"broken\0\0" + zlib.compress(b"not a profile"), ("profile",)),
    (b"iCCP", b"broken\0\0not even compressed", ("profile",)),
    (b"iCCP", b"no end of its name", ("profile",)),
    (b"iCCP", b"packed otherwise\0\7" + zlib.compress(b"a profile"), ("profile",)),
    (b"iCCP", b"cut\0\0" + zlib.compress(b"a profile")[:8], ("profile",)),
    (b"iCCP", b"large\0\0" + zlib.compress(bytes(2**21)), ("profile",)),
    (b"eXIf", b"no TIFF header", ("orientation",)),
    (b"eXIf", b"II*\0\x08\0\0\0\x09\0", ("orientation",)),
    (b"eXIf", b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHII", 0x112, 3, 1, 6) + struct.pack("<HHII", 0x112, 3, 1, 8), ("orientation",)),
    (b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 3, 1, 9), ("orientation",)),
    (b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 3, 1, 0), ()),
]
"""Chunks beside the pixels whose content is odd: name, content, and what of it would change the pixels and cannot be read."""


@pytest.mark.parametrize(("kind", "content", "unread"), ODD_CHUNKS)
def test_a_png_with_odd_metadata_is_decoded_and_what_cannot_be_read_is_told(kind: bytes, content: bytes, unread: tuple[str, ...]) -> None:
    rgb = variants.samples(3)
    picture = decode_picture(variants.png(rgb, 2, 8, before={kind: content}))
    assert np.array_equal(picture.pixels, rgb)
    assert picture.unread == unread


@pytest.mark.parametrize("kind", [b"iCCP", b"eXIf", b"tEXt", b"pHYs"])
def test_a_png_whose_metadata_fail_their_checksum_is_decoded_without_them(kind: bytes) -> None:
    rgb = variants.samples(3)
    data = bytearray(variants.png(rgb, 2, 8, before={kind: b"some\0\0bytes"}))
    data[data.index(kind) + 6] ^= 1
    assert np.array_equal(decode(bytes(data)), rgb)


def test_a_wrong_checksum_of_the_transparent_colour_is_not_passed_over() -> None:
    data = bytearray(variants.png(variants.samples(1), 0, 8, before={b"tRNS": b"\0\x07"}))
    data[data.index(b"tRNS") + 5] ^= 1
    with pytest.raises(ImageError, match="checksum of its 'tRNS' chunk is wrong"):
        decode(bytes(data))


@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_a_jpeg_2000_whose_tile_has_more_parts_than_it_counts_is_decoded(form: str) -> None:
    """As some encoders write it: two parts, and each says that there is one; Pillow alone calls it broken."""
    rgb = variants.samples(3)
    data = imagecodecs.jpeg2k_encode(rgb, level=0, codecformat=form, reversible=True)
    start = data.index(b"\xff\x90")
    body, end = data[start + 14 : -2], data[-2:]
    halves = body[: len(body) // 2], body[len(body) // 2 :]
    parts = [struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(half), k, 1) + b"\xff\x93" + half for k, half in enumerate(halves)]
    assert data[start + 12 : start + 14] == b"\xff\x93"
    split = data[:start] + b"".join(parts) + end
    if form == "jp2":
        box = data.index(b"jp2c") - 4
        split = split[:box] + struct.pack(">I", len(split) - box) + split[box + 4 :]
    with pytest.raises(OSError, match="broken data stream"):
        Image.open(io.BytesIO(split)).load()
    assert np.array_equal(decode(split), rgb)
    assert np.array_equal(decode(data), rgb)


@pytest.mark.parametrize("tile", [None, (8, 8)])
@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_a_jpeg_2000_that_is_cut_anywhere_is_refused_between_its_tiles_too(form: str, tile: tuple[int, int] | None) -> None:
    buffer = io.BytesIO()
    Image.fromarray(variants.samples(3)).save(buffer, "JPEG2000", no_jp2=form == "j2k", tile_size=tile)
    data = buffer.getvalue()
    tiles = [place for place in range(len(data)) if data[place : place + 4] == b"\xff\x90\0\x0a"]
    assert (len(tiles) > 1) == (tile is not None)
    for cut in {*range(0, len(data), 29), *tiles, *(place + 14 for place in tiles), len(data) - 2}:
        with pytest.raises(ImageError):
            decode(data[:cut])


def test_a_lossless_jpeg_is_called_so() -> None:
    with pytest.raises(ImageError, match="the JPEG is lossless or in layers, which is not read"):
        decode(imagecodecs.ljpeg_encode(variants.samples(1)[..., 0]))


def test_a_wrong_checksum_is_named_by_its_chunk() -> None:
    data = bytearray(variants.png(variants.samples(1), 0, 8))
    data[data.index(b"IDAT") + 8] ^= 1
    with pytest.raises(ImageError, match="checksum of its 'IDAT' chunk is wrong"):
        decode(bytes(data))


def test_colours_of_another_profile_become_srgb() -> None:
    """A profile whose red and green are exchanged gives exchanged colours; sRGB's own changes nothing."""
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 200
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb)
    red, green = swapped.index(b"rXYZ"), swapped.index(b"gXYZ")
    swapped[red : red + 4], swapped[green : green + 4] = b"gXYZ", b"rXYZ"
    description = swapped.index(b"s\0R\0G\0B")
    swapped[description : description + 7] = b"o\0t\0h\0e"
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", icc_profile=bytes(swapped))
    pixels = decode(buffer.getvalue())[0, 0]
    assert pixels[1] > 150 > pixels[0]
    plain = io.BytesIO()
    Image.fromarray(rgb).save(plain, "PNG", icc_profile=srgb)
    assert np.array_equal(decode(plain.getvalue()), rgb)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a git-lfs pointer.*git lfs pull"),
        (b"L\0\0\0\x01\x14\x02\0\0\0\0\0", "a Windows shortcut"),
        (b"\xff\x0a\xff\x07" + bytes(40), "a JPEG XL picture, which is not read; save it as PNG or JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08\0\x20\0\x18\1\1\x11\0", "a JPEG of a kind that is not read"),
        (bytes(128) + b"DICM" + bytes(40), "a DICOM file"),
        (b"8BPS\0\1" + bytes(40), "a Photoshop document"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw file"),
        (b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0", "an icon"),
        (b"qoif\0\0\0\x10\0\0\0\x10\3\0", "a picture of a kind that is not read; save it as PNG"),
        (bytes(500), "zeros from its beginning on"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "a video"),
        (b"PK\x03\x04" + bytes(40), "an archive or compressed"),
        (b"../.git/annex/objects/SHA256E-s1--00.png", "a git-annex pointer"),
        (b"/annex/objects/SHA256E-s1--00.png\n", "a git-annex pointer"),
        (b"../store/1.png\n", "the text of a link"),
        (b"[InternetShortcut]\r\nURL=http://x/1.png", "a Windows shortcut"),
        (b"book\0\0\0\0mark\0\0\0\0", "a macOS alias"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X" + bytes(40), "AppleDouble"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a picture in base64"),
        (b'{"error": {"code": 403}}', "a JSON text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC picture|cut or damaged"),
    ],
)
def test_what_bears_a_picture_s_name_and_is_something_else_is_called_what_it_is(data: bytes, named: str) -> None:
    with pytest.raises(ImageError, match=named):
        decode(data)


@pytest.mark.parametrize("grey", [False, True])
def test_what_the_first_frame_of_a_gif_does_not_cover_is_white(grey: bool) -> None:
    """As viewers show it; Pillow has the palette's first colour there."""
    values = np.repeat(variants.samples(1, bits=4), 3, axis=2) * 17 if grey else variants.samples(3)
    frame = Image.fromarray(values).quantize(16, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    frame.save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    place = data.index(struct.pack("<cHHHH", b",", 0, 0, variants.WIDTH, variants.HEIGHT))
    data[6:10] = struct.pack("<HH", variants.WIDTH + 5, variants.HEIGHT + 3)
    data[place + 1 : place + 5] = struct.pack("<HH", 2, 1)
    wanted = np.full((variants.HEIGHT + 3, variants.WIDTH + 5, 3), 255, np.uint8)
    wanted[1:-2, 2:-3] = np.asarray(frame.convert("RGB"))
    assert np.array_equal(np.broadcast_to(decode(bytes(data)), wanted.shape), wanted)


def test_a_palette_of_8_bits_in_a_tiff_is_read_as_such() -> None:
    indices = np.arange(variants.HEIGHT * variants.WIDTH, dtype=np.uint8).reshape(variants.HEIGHT, variants.WIDTH)
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    for scale in (1, 257):
        data = variants.plain_tiff(indices[..., None], {262: (3, [3]), 320: (3, (colours.T.ravel() * scale).tolist())})
        assert np.array_equal(decode(data), colours[indices])


def test_what_may_mean_two_things_in_a_tiff_is_refused_by_name() -> None:
    four = variants.samples(4)
    with pytest.raises(ImageError, match=r"does not say what its fourth sample is \(ExtraSamples\)"):
        decode(variants.plain_tiff(four, {262: (3, [2])}))
    four[..., 3] = 255
    assert np.array_equal(decode(variants.plain_tiff(four, {262: (3, [2])})), four[..., :3])
    values = variants.samples(3)
    assert decode(variants.plain_tiff(values, {262: (3, [6]), 530: (3, [1, 1])})).shape == values.shape
    for more in ({}, {530: (3, [2, 2])}):
        with pytest.raises(ImageError, match="YCbCr with fewer colours than pixels and no compression, which is not read"):
            decode(variants.plain_tiff(values, {262: (3, [6]), **more}))


def test_a_png_that_is_packed_for_iphones_is_called_so() -> None:
    values = variants.samples(4)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(b"".join(b"\0" + row.tobytes() for row in values)) + packer.flush()
    header = struct.pack(">IIBBBBB", variants.WIDTH, variants.HEIGHT, 8, 6, 0, 0, 0)
    chunks = {b"CgBI": b"\x50\0\x20\x02", b"IHDR": header, b"IDAT": body, b"IEND": b""}
    with pytest.raises(ImageError, match=r"packed for iPhones \(CgBI\), which is not read; convert it by pngcrush"):
        decode(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks.items()))


def test_a_png_that_moves_is_its_first_frame_however_the_others_are_damaged() -> None:
    first, second = variants.samples(3, seed=1), variants.samples(3, seed=2)
    buffer = io.BytesIO()
    Image.fromarray(first).save(buffer, "PNG", save_all=True, append_images=[Image.fromarray(second)])
    data = buffer.getvalue()
    at = data.index(b"fcTL", data.index(b"IDAT")) - 4  # the second frame's
    assert np.array_equal(decode(data), first)
    assert np.array_equal(decode(data[:at] + data[at + 38 :]), first)


def test_a_bmp_of_a_layout_that_is_not_read_is_called_so() -> None:
    masks = struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0) + masks
    data = b"BM" + struct.pack("<IHHI", 14 + len(header) + 16, 0, 0, 14 + len(header)) + header + bytes(16)
    with pytest.raises(ImageError, match=r"of a kind that is not read \(Unsupported BMP bitfields layout\), or damaged; save it as PNG"):
        decode(data)


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    started = time.thread_time()
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
        decode(data[:-2] + scan * 5_000 + data[-2:])
    assert time.thread_time() - started < 2


def test_text_pictures_of_very_many_comments_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match="comments"):
        decode(b"P3\n" + b"#a\n" * 500_000 + b"1 1\n255\n1 2 3\n")


MEASURE = """
import io, sys
from PIL import Image
from components.classifier.decode import decode, work_bytes

def status(key):
    return 1024 * int(open("/proc/self/status").read().split(key + ":")[1].split()[0])

kind, data = sys.argv[1], sys.stdin.buffer.read()
small = io.BytesIO()
Image.new("RGB", (8, 8)).save(small, kind)
decode(small.getvalue())  # what is imported and kept for good
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
decode(data)
print(status("VmHWM") - before, work_bytes(Image.open(io.BytesIO(data))))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory by Linux' /proc")
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("WEBP", "RGB", {"lossless": True}),
        ("PNG", "1", {"transparency": 0}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("AVIF", "RGB", {}),
    ],
    ids=lambda value: str(value),
)
def test_a_small_file_of_a_large_picture_takes_no_more_memory_than_was_foreseen(kind: str, mode: str, options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (4000, 4000)).save(buffer, kind, **options)
    done = subprocess.run([sys.executable, "-c", MEASURE, kind], input=buffer.getvalue(), capture_output=True, check=True)
    took, foreseen = map(int, done.stdout.split())
    assert took <= foreseen


def test_a_tiff_whose_tile_is_far_larger_than_the_picture_is_refused_for_the_memory_that_it_needs() -> None:
    data = bytearray(variants.tiff(variants.samples(1)[..., 0], photometric="minisblack", tile=(16, 16)))
    for tag in (322, 323):
        at = data.index(struct.pack("<HHI", tag, 4, 1))
        data[at + 8 : at + 12] = struct.pack("<I", 32768)
    with pytest.raises(ImageError, match="needs 8,192 MiB to be decoded"):
        decode(bytes(data))


def test_decoding_waits_until_the_process_has_memory_for_it_again() -> None:
    budget, order = WorkBudget(100 * 2**20), list[str]()
    release = threading.Event()

    def first() -> None:
        with budget.hold(80 * 2**20):
            order.append("first begins")
            release.wait(60)
            order.append("first ends")

    def second() -> None:
        with budget.hold(30 * 2**20):
            order.append("second begins")

    one, two = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    while not order:
        time.sleep(0.001)
    two.start()
    with budget.hold(1000):
        assert order == ["first begins"]
    release.set()
    one.join()
    two.join()
    assert order == ["first begins", "first ends", "second begins"]
    with pytest.raises(ImageError, match="needs 101 MiB to be decoded, more than the 100 MiB"), budget.hold(101 * 2**20):
        pass
