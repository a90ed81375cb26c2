"""Pictures of every format, depth and layout, each with the pixels that its format's specification gives it.

What a file means is said by the numbers it was made from, and again by a decoder that is not Pillow (`independent`).
"""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 13, 19  # neither is a multiple of 8: rows of few bits end within a byte


@dataclass(frozen=True)
class Variant:
    """One file; `expected` is uint8 (H, W, 1 or 3), and `tolerance` how far lossy decoders may differ."""

    name: str
    data: bytes
    expected: Array
    tolerance: int = 0

    def __str__(self) -> str:
        return self.name


def samples(channels: int, dtype: Any = np.uint8, bits: int | None = None, seed: int = 0) -> Array:
    """Random samples (H, W, channels) that use the whole range of `bits`."""
    top = 2 ** (bits or np.dtype(dtype).itemsize * 8) - 1
    rng = np.random.default_rng(seed)
    values = rng.integers(0, top, (HEIGHT, WIDTH, channels), endpoint=True)
    values[0, 0], values[0, 1] = 0, top
    return values.astype(dtype)


def eight(values: Array, bits: int) -> Array:
    """Samples of so many bits as 8 bits: 16-bit grey rounded, 16-bit colour by its high byte, fewer bits stretched."""
    wide = values.astype(np.int64)
    if bits == 16:
        return ((wide + 128) // 257 if values.shape[2] < 3 else wide >> 8).astype(np.uint8)
    return (wide * 255 // (2**bits - 1)).astype(np.uint8)


def on_white(colour: Array, alpha: Array) -> Array:
    """Composite over white; alpha from 0 to 255."""
    a = alpha.astype(np.float64) / 255
    return np.rint(colour * a + 255 * (1 - a)).astype(np.uint8)


# --- PNG


def png(values: Array, colour_type: int, bits: int, interlace: bool = False, before: dict[bytes, bytes] | None = None) -> bytes:
    """Write a PNG by its specification: unfiltered rows, Adam7 where asked, other chunks before the data."""
    height, width = values.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x, y, dx, dy in passes:
        for row in values[y::dy, x::dx]:
            if row.size:
                raw += b"\0" + _packed(row, bits)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlace))
    chunks = {b"IHDR": header, **(before or {}), b"IDAT": zlib.compress(raw), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _packed(row: Array, bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    split = (row.reshape(-1, 1).astype(np.uint8) >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(split.ravel()).tobytes()


def pngs() -> Iterator[Variant]:
    """Every colour type and depth that PNG has, plain and interlaced, with and without a transparent colour."""
    for interlace in (False, True):
        suffix = "-interlaced" if interlace else ""
        for bits in (1, 2, 4, 8, 16):
            grey = samples(1, np.uint16, bits)
            yield Variant(f"png-grey-{bits}{suffix}", png(grey, 0, bits, interlace), eight(grey, bits))
            for key in sorted({0, 1, 2**bits - 1}):
                clear = np.where(grey == key, 255, eight(grey, bits)).astype(np.uint8)
                data = png(grey, 0, bits, interlace, {b"tRNS": struct.pack(">H", key)})
                yield Variant(f"png-grey-{bits}-trns-{key}{suffix}", data, clear)
        for bits in (8, 16):
            rgb = samples(3, np.uint16, bits)
            yield Variant(f"png-rgb-{bits}{suffix}", png(rgb, 2, bits, interlace), eight(rgb, bits))
            key3 = [int(v) for v in rgb[3, 3]]
            match = (rgb == key3).all(axis=2, keepdims=True)
            clear = np.where(match, 255, eight(rgb, bits)).astype(np.uint8)
            yield Variant(f"png-rgb-{bits}-trns{suffix}", png(rgb, 2, bits, interlace, {b"tRNS": struct.pack(">HHH", *key3)}), clear)
            la = samples(2, np.uint16, bits)
            flat = eight(la[..., :1], bits) if bits == 8 else (la[..., :1] >> 8).astype(np.uint8)
            alpha = la[..., 1:] >> (bits - 8)
            yield Variant(f"png-grey-alpha-{bits}{suffix}", png(la, 4, bits, interlace), on_white(flat, alpha), 1)
            rgba = samples(4, np.uint16, bits)
            alpha = rgba[..., 3:] >> (bits - 8)
            yield Variant(f"png-rgba-{bits}{suffix}", png(rgba, 6, bits, interlace), on_white(eight(rgba[..., :3], bits), alpha), 1)
        for bits in (1, 2, 4, 8):
            index = samples(1, np.uint8, bits)
            palette = np.random.default_rng(1).integers(0, 256, (2**bits, 3)).astype(np.uint8)
            colours = palette[index[..., 0]]
            yield Variant(f"png-palette-{bits}{suffix}", png(index, 3, bits, interlace, {b"PLTE": palette.tobytes()}), colours)
            alphas = np.linspace(0, 255, 2**bits).astype(np.uint8)
            chunks = {b"PLTE": palette.tobytes(), b"tRNS": alphas.tobytes()}
            yield Variant(
                f"png-palette-{bits}-trns{suffix}",
                png(index, 3, bits, interlace, chunks),
                on_white(colours, alphas[index[..., 0], None]),
                1,
            )


# --- TIFF


def tiffs() -> Iterator[Variant]:
    """Depths, polarities, planes, compressions, predictors, strips and tiles, both byte orders."""
    orders, compressions = (("<", "le"), (">", "be")), (None, "lzw", "deflate", "packbits", "zstd")
    for (order, order_name), compression, bits, (channels, planar, white) in itertools.product(
        orders, compressions, (8, 16), ((1, None, False), (1, None, True), (3, "contig", False), (3, "separate", False))
    ):
        dtype = np.uint8 if bits == 8 else np.uint16
        values = samples(channels, dtype)
        shown = eight(values, bits) if not white else eight((2**bits - 1 - values.astype(np.int64)).astype(dtype), bits)
        for layout, options in (("strip", {"rowsperstrip": 5}), ("tile", {"tile": (16, 16)})):
            for predictor in (False, True) if compression in {"lzw", "deflate"} else (False,):
                stored = np.moveaxis(values, 2, 0) if planar == "separate" else values if channels > 1 else values[..., 0]
                data = tiff(
                    stored,
                    byteorder=order,
                    compression=compression,
                    photometric="rgb" if channels == 3 else "miniswhite" if white else "minisblack",
                    planarconfig=planar,
                    predictor=predictor,
                    **options,
                )
                kind = f"{'rgb' if channels == 3 else 'grey'}{'-planar' if planar == 'separate' else ''}{'-white-is-zero' if white else ''}"
                name = f"tiff-{kind}-{bits}-{order_name}-{compression or 'raw'}-{layout}{'-predictor' if predictor else ''}"
                yield Variant(name, data, shown)
    for white in (False, True):
        bilevel = samples(1, np.uint8, 1)[..., 0].astype(bool)
        shown = np.where(bilevel != white, 255, 0).astype(np.uint8)[..., None]
        yield Variant(
            f"tiff-bilevel{'-white-is-zero' if white else ''}", tiff(bilevel, photometric="miniswhite" if white else "minisblack"), shown
        )
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        for meaning in ("unassalpha", "assocalpha", "unspecified"):
            for channels in (2, 4):
                values = samples(channels, dtype)
                if meaning == "assocalpha":
                    values[..., :-1] = np.minimum(values[..., :-1], values[..., -1:])
                yield _with_alpha(values, bits, meaning)
    palette = np.random.default_rng(2).integers(0, 65536, (3, 256)).astype(np.uint16)
    index = samples(1, np.uint8)[..., 0]
    yield Variant("tiff-palette-8", tiff(index, photometric="palette", colormap=palette), (palette.T[index] // 256).astype(np.uint8))
    for name, dtype in (
        ("int8", np.int8),
        ("int16", np.int16),
        ("uint32", np.uint32),
        ("int32", np.int32),
        ("float16", np.float16),
        ("float32", np.float32),
        ("float64", np.float64),
    ):
        values = np.linspace(-100, 100, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype)
        yield Variant(f"tiff-grey-{name}", tiff(values, photometric="minisblack"), np.zeros((HEIGHT, WIDTH, 1), np.uint8))
        if dtype not in {np.int32, np.uint32}:
            yield Variant(f"tiff-rgb-{name}", tiff(np.dstack([values] * 3), photometric="rgb"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    cmyk = samples(4)
    ink = 255 - cmyk.astype(np.int64)
    yield Variant("tiff-cmyk-8", tiff(cmyk, photometric="separated"), ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8), 1)
    for orientation in range(1, 9):
        values = samples(3)
        data = tiff(values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        yield Variant(f"tiff-orientation-{orientation}", data, turned(values, orientation))


def _with_alpha(values: Array, bits: int, meaning: str) -> Variant:
    colour, alpha = values[..., :-1].astype(np.float64), values[..., -1:].astype(np.float64)
    top = 2**bits - 1
    if meaning == "unspecified":
        shown = eight(values[..., :-1], bits)
    elif meaning == "assocalpha":
        shown = np.rint((colour + top - alpha) * 255 / top).astype(np.uint8)
    else:
        shown = np.rint((colour * alpha / top + top - alpha) * 255 / top).astype(np.uint8)
    data = tiff(values, photometric="rgb" if values.shape[2] == 4 else "minisblack", planarconfig="contig", extrasamples=[meaning])
    rounding = 3 if meaning == "assocalpha" else 2  # the colour was multiplied by alpha, and is known to fewer bits
    return Variant(f"tiff-{'rgb' if values.shape[2] == 4 else 'grey'}-{meaning}-{bits}", data, shown, rounding)


def tiff(values: Array, **options: Any) -> bytes:
    """Write a TIFF by tifffile, without the metadata that it adds by itself."""
    buffer = io.BytesIO()
    order = options.pop("byteorder", "<")
    with tifffile.TiffWriter(buffer, byteorder=order) as writer:
        writer.write(values, metadata=None, software=None, **{k: v for k, v in options.items() if v is not None and v is not False})
    return buffer.getvalue()


def plain_tiff(values: Array, extra: dict[int, tuple[int, list[int]]] | None = None) -> bytes:
    """Write an 8-bit TIFF of one strip by its specification; `extra` gives further tags, or other values: (type, values)."""
    height, width, channels = values.shape
    tags = {
        256: (3, [width]),
        257: (3, [height]),
        258: (3, [8] * channels),
        259: (3, [1]),
        262: (3, [1 if channels == 1 else 2]),
        273: (4, [0]),
        277: (3, [channels]),
        278: (3, [height]),
        279: (4, [values.size]),
        **(extra or {}),
    }
    codes, start = {1: "B", 3: "H", 4: "I"}, 8 + 2 + 12 * len(tags) + 4
    packed = {tag: struct.pack(f"<{len(numbers)}{codes[kind]}", *numbers) for tag, (kind, numbers) in tags.items()}
    long = {tag: data for tag, data in packed.items() if len(data) > 4}
    packed[273] = struct.pack("<I", start + sum(map(len, long.values())))
    entries, body = b"", b""
    for tag, (kind, numbers) in sorted(tags.items()):
        data = packed[tag]
        if tag in long:
            data, body = struct.pack("<I", start + len(body)), body + data
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + body + values.astype(np.uint8).tobytes()


def turned(values: Array, orientation: int) -> Array:
    """Turn stored pixels as the orientation tag says (TIFF 6.0, tag 274)."""
    turns: dict[int, Callable[[Array], Array]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    return np.ascontiguousarray(turns[orientation](values))


# --- BMP


def bmps() -> Iterator[Variant]:
    """Headers of four ages, depths from 1 to 32 bits, bottom-up and top-down, with masks and without."""
    for header, top_down in itertools.product((40, 52, 56, 108, 124), (False, True)):
        for bits in (1, 4, 8, 16, 24, 32):
            yield _bmp(header, bits, top_down)
        yield _bmp(header, 32, top_down, alpha=True)
        yield _bmp(header, 32, top_down, alpha=True, clear=True)
        yield _bmp(header, 16, top_down, five_six_five=True)


def _bmp(header: int, bits: int, top_down: bool, alpha: bool = False, clear: bool = False, five_six_five: bool = False) -> Variant:
    rows = range(HEIGHT) if top_down else range(HEIGHT - 1, -1, -1)
    palette, masks, tolerance = b"", b"", 0
    if bits <= 8:
        index = samples(1, np.uint8, bits)[..., 0]
        colours = np.random.default_rng(3).integers(0, 256, (2**bits, 3)).astype(np.uint8)
        expected = colours[index]
        palette = b"".join(bytes([*c[::-1], 0]) for c in colours)
        lines = [_packed(index[y], bits) for y in rows]
    elif bits == 16:
        values = samples(3, np.uint16, 5)
        if five_six_five:
            values[..., 1] = samples(1, np.uint16, 6, 4)[..., 0]
            word, masks, green = values[..., 0] << 11 | values[..., 1] << 5 | values[..., 2], struct.pack("<III", 0xF800, 0x7E0, 0x1F), 63
        else:
            word, green = values[..., 0] << 10 | values[..., 1] << 5 | values[..., 2], 31
        expected = (values.astype(np.int64) * 255 // np.array([31, green, 31])).astype(np.uint8)
        lines, tolerance = [word[y].astype("<u2").tobytes() for y in rows], 1
    else:
        expected = samples(3)
        fourth = np.zeros((HEIGHT, WIDTH, 1), np.uint8) if clear or not alpha else samples(1, seed=5)
        if alpha:
            masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        stored = expected[..., ::-1] if bits == 24 else np.dstack([expected[..., ::-1], fourth])
        lines = [stored[y].tobytes() for y in rows]
        if alpha and not clear and header >= 56:
            expected, tolerance = on_white(expected, fourth), 1
    lines = [line + bytes(-len(line) % 4) for line in lines]
    compression = 3 if masks else 0
    info = struct.pack(
        "<IiiHHIIiiII", header, WIDTH, -HEIGHT if top_down else HEIGHT, 1, bits, compression, sum(map(len, lines)), 2835, 2835, 0, 0
    )
    if header == 40:
        masks = masks[:12]
    elif header == 52:
        masks = (masks or bytes(12))[:12]
    rest = (masks + bytes(16))[: max(header - 40, len(masks))].ljust(header - 40, b"\0") if header > 40 else masks
    if header >= 108:
        rest = (masks.ljust(16, b"\0") + b"BGRs").ljust(header - 40, b"\0")
    offset = 14 + len(info) + len(rest) + len(palette)
    body = info + rest + palette + b"".join(lines)
    data = b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, offset) + body
    kind = f"bmp{bits}{'-alpha' if alpha else ''}{'-clear' if clear else ''}{'-565' if five_six_five else ''}"
    return Variant(f"{kind}-header-{header}{'-top-down' if top_down else ''}", data, expected, tolerance)


# --- the others


def jpegs() -> Iterator[Variant]:
    """Grey, colour and CMYK; baseline and progressive; with and without chroma subsampling; every orientation."""
    smooth = cv2.resize(np.random.default_rng(6).integers(0, 256, (4, 5, 3)).astype(np.uint8), (WIDTH, HEIGHT))
    for progressive, subsampling, quality in itertools.product((0, 1), ("444", "422", "420", "411"), (60, 95)):
        data = _cv_jpeg(smooth, quality, progressive, subsampling)
        yield Variant(
            f"jpeg-rgb-{subsampling}-{quality}{'-progressive' if progressive else ''}", data, _rgb(imagecodecs.jpeg8_decode(data)), 2
        )
    for progressive in (0, 1):
        ok, coded = cv2.imencode(".jpg", smooth[..., 0], [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
        assert ok
        yield Variant(
            f"jpeg-grey{'-progressive' if progressive else ''}", coded.tobytes(), _rgb(imagecodecs.jpeg8_decode(coded.tobytes())), 2
        )
    for orientation in range(1, 9):
        plain = _cv_jpeg(smooth, 95, 0, "444")
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + bytes(4)
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
        yield Variant(f"jpeg-orientation-{orientation}", data, turned(_rgb(imagecodecs.jpeg8_decode(plain)), orientation), 2)


def _cv_jpeg(rgb: Array, quality: int, progressive: int, subsampling: str) -> bytes:
    factor = {"444": 0x111111, "422": 0x211111, "420": 0x221111, "411": 0x411111}[subsampling]
    ok, coded = cv2.imencode(
        ".jpg",
        rgb[..., ::-1],
        [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor],
    )
    assert ok
    return coded.tobytes()


def _rgb(values: Array) -> Array:
    return values[..., None] if values.ndim == 2 else values


def others() -> Iterator[Variant]:
    """WebP, GIF, the PNM family, AVIF and JPEG 2000."""
    rgb, rgba, grey = samples(3), samples(4), samples(1)
    yield Variant("webp-lossless", imagecodecs.webp_encode(rgb, lossless=True), rgb)
    smooth = cv2.resize(np.random.default_rng(6).integers(0, 256, (4, 5, 3)).astype(np.uint8), (WIDTH, HEIGHT))
    lossy = imagecodecs.webp_encode(smooth, level=90)
    yield Variant("webp-lossy", lossy, imagecodecs.webp_decode(lossy), 2)
    rgba[..., 3] |= 1
    yield Variant("webp-alpha", imagecodecs.webp_encode(rgba, lossless=True), on_white(rgba[..., :3], rgba[..., 3:]), 1)
    yield Variant("gif-grey", imagecodecs.gif_encode(grey[..., 0]), grey)
    for top in (1, 15, 100, 255, 1000, 4095, 65535):
        bits = 16 if top > 255 else 8
        g, c = (samples(1, np.int64, 16) % (top + 1)), (samples(3, np.int64, 16) % (top + 1))
        for kind, values in ((5, g), (6, c)):
            raw = values.astype(">u2").tobytes() if bits == 16 else values.astype(np.uint8).tobytes()
            yield Variant(
                f"pnm-p{kind}-{top}",
                b"P%d\n%d %d\n%d\n" % (kind, WIDTH, HEIGHT, top) + raw,
                np.rint(values * 255 / top).astype(np.uint8),
                1,
            )
            text = " ".join(map(str, values.ravel())).encode()
            yield Variant(
                f"pnm-p{kind - 3}-{top}",
                b"P%d\n%d %d\n%d\n" % (kind - 3, WIDTH, HEIGHT, top) + text,
                np.rint(values * 255 / top).astype(np.uint8),
                1,
            )
    bilevel = samples(1, np.uint8, 1)
    packed = b"".join(_packed(row, 1) for row in bilevel)
    shown = np.where(bilevel, 0, 255).astype(np.uint8)
    yield Variant("pnm-p4", b"P4\n%d %d\n" % (WIDTH, HEIGHT) + packed, shown)
    yield Variant("pnm-p1", b"P1\n%d %d\n" % (WIDTH, HEIGHT) + " ".join(map(str, bilevel.ravel())).encode(), shown)
    avif = imagecodecs.avif_encode(smooth, level=90)
    yield Variant("avif", avif, imagecodecs.avif_decode(avif), 3)
    for bits, channels in itertools.product((8, 16), (1, 3)):
        dtype = np.uint8 if bits == 8 else np.uint16
        values = samples(channels, dtype)
        stored = values[..., 0] if channels == 1 else values
        for codec in ("jp2", "j2k"):
            yield Variant(
                f"jpeg2000-{codec}-{channels}x{bits}",
                imagecodecs.jpeg2k_encode(stored, codecformat=codec, reversible=True, level=0),
                eight(values, bits),
            )


def every() -> list[Variant]:
    """All of them."""
    return [*pngs(), *tiffs(), *bmps(), *jpegs(), *others()]
