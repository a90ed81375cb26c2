"""One picture gives the same pixels by every way in: training's dataset, batch scoring, and a predictor that runs; or the same refusal."""

import io
import json
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import tifffile
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from PIL import Image, ImageCms

from components.bundle.model import Classifier
from components.classifier import metadata
from components.classifier.images import ImageSpec, from_bytes
from components.predictor.decoding import DecoderProcess
from components.validate_serving.predictor_process import predictor
from tests import tiny
from tests.classifier import variants
from tests.ingest.cases import encode, put, tar_of, zip_of
from tests.ingest.conftest import Run, run
from tests.predictor.versions import INFER, NAME, PREDICT, b64, binary, elements, model_dir, tensor
from tests.score.conftest import Score, publish, score
from tests.score.conftest import model as model

__all__ = ["run", "score"]

LEVELS, SIZE = 12, 8
Array = np.ndarray[Any, Any]


def scene(seed: int, top: int = 255, size: tuple[int, int] = (15, 11)) -> Array:
    """Smooth shapes in colour, 0 to `top`, uint16 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.round(np.asarray(small) * (top / 255)).astype(np.uint16)


def colour(seed: int) -> Array:
    return scene(seed).astype(np.uint8)


def tiff(values: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def other(seed: int) -> Image.Image:
    """The second frame of a picture that moves."""
    return Image.fromarray(colour(seed + 1000))


def turn(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def odd_exif(seed: int) -> bytes:
    """A JPEG that is turned by its orientation tag, beside a tag whose value is text where a number belongs."""
    plain = encode(Image.fromarray(colour(seed)), "JPEG", quality=95)
    body = struct.pack("<HHHI4sHHI4s", 2, 0x112, 3, 1, b"\6\0\0\0", 0x213, 2, 2, b"1\0\0\0") + bytes(4)
    block = b"Exif\0\0II*\0\x08\0\0\0" + body
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def clear_bmp(seed: int) -> bytes:
    """A 32-bit BMP with an alpha channel that is 0 everywhere."""
    pixels = np.dstack([colour(seed)[::-1, :, ::-1], np.zeros((15, 11), np.uint8)])
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 11, 15, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0) + masks + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + pixels.nbytes, 0, 0, 14 + len(header)) + header + pixels.tobytes()


def with_profile(seed: int) -> bytes:
    """A PNG with a profile in which red and green are exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green, description = profile.index(b"rXYZ"), profile.index(b"gXYZ"), profile.index(b"s\0R\0G\0B")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    profile[description : description + 7] = b"o\0t\0h\0e"
    return encode(Image.fromarray(colour(seed)), "PNG", icc_profile=bytes(profile))


def twisted_profile() -> bytes:
    profile: bytes = Image.open(io.BytesIO(with_profile(0))).info["icc_profile"]
    return profile


def keyed(seed: int) -> bytes:
    """A PNG with a profile, of which one colour is transparent."""
    key = tuple(colour(seed)[3, 4].tolist())
    return encode(Image.fromarray(colour(seed)), "PNG", icc_profile=twisted_profile(), transparency=key)


def damaged(data: bytes, kind: bytes) -> bytes:
    """A PNG in which the checksum of a chunk is wrong."""
    at = data.index(kind)
    (size,) = struct.unpack_from(">I", data, at - 4)
    return data[: at + 4 + size] + bytes(4) + data[at + 8 + size :]


UNREAD: dict[str, tuple[str, Callable[[int], bytes], str]] = {
    "damaged turn": ("png", lambda seed: damaged(encode(Image.fromarray(colour(seed)), "PNG", exif=turn(6)), b"eXIf"), "orientation"),
    "cut turn": ("jpg", lambda seed: encode(Image.fromarray(colour(seed)), "JPEG", exif=turn(6).tobytes()[:20]), "orientation"),
    "turn of text": ("webp", lambda seed: encode(Image.fromarray(colour(seed)), "WEBP", exif=TEXT_TURN), "orientation"),
    "damaged profile": ("png", lambda seed: damaged(with_profile(seed), b"iCCP"), "profile"),
    "profile that is none": ("jpg", lambda seed: encode(Image.fromarray(colour(seed)), "JPEG", icc_profile=b"none"), "profile"),
    "pages": ("tif", lambda seed: tiff(np.stack([colour(seed), colour(seed + 1000)]), photometric="rgb"), "pages"),
}
"""Good pictures that have something beside their pixels that would change them, and is not read: ending, picture, what is not read."""
TEXT_TURN = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4s", 0x112, 2, 2, b"6\0\0\0") + bytes(4)

KINDS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "png": ("png", lambda seed: encode(colour(seed))),
    "12-bit grey png": ("png", lambda seed: encode(Image.fromarray(scene(seed, 4095)[..., 1]))),
    "12-bit colour png": ("png", lambda seed: variants.png(scene(seed, 4095), 2, 16)),
    "12-bit grey tiff": ("tif", lambda seed: tiff(scene(seed, 4095)[..., 0])),
    "12-bit white-is-zero tiff": ("tif", lambda seed: tiff(scene(seed, 4095)[..., 0], photometric="miniswhite", byteorder="<")),
    "12-bit colour tiff": ("tif", lambda seed: tiff(scene(seed, 4095), photometric="rgb", compression="zlib")),
    "8-bit white-is-zero tiff": ("tif", lambda seed: tiff(colour(seed)[..., 0], photometric="miniswhite")),
    "bmp with alpha 0": ("bmp", clear_bmp),
    "odd exif beside a turn": ("jpg", odd_exif),
    "profile": ("png", with_profile),
    "palette": ("gif", lambda seed: encode(Image.fromarray(colour(seed)).quantize(16), "GIF")),
    "cmyk": ("jpg", lambda seed: encode(Image.fromarray(colour(seed)).convert("CMYK"), "JPEG")),
    "webp": ("webp", lambda seed: encode(Image.fromarray(colour(seed)), "WEBP", quality=80)),
    "moving webp": ("webp", lambda seed: encode(Image.fromarray(colour(seed)), "WEBP", save_all=True, append_images=[other(seed)])),
    "turned avif": ("avif", lambda seed: encode(Image.fromarray(colour(seed)), "AVIF", exif=turn(6))),
    "turned png": ("png", lambda seed: encode(Image.fromarray(colour(seed)), "PNG", exif=turn(8))),
    "codestream": ("j2k", lambda seed: imagecodecs.jpeg2k_encode(colour(seed), level=0, codecformat="j2k", reversible=True)),
    "turned with a profile": (
        "jpg",
        lambda seed: encode(Image.fromarray(colour(seed)), "JPEG", quality=95, exif=turn(6), icc_profile=twisted_profile()),
    ),
    "palette with a profile": (
        "png",
        lambda seed: encode(Image.fromarray(colour(seed)).quantize(16), "PNG", icc_profile=twisted_profile()),
    ),
    "profile and transparent colour": ("png", keyed),
    "12-bit ppm": ("ppm", lambda seed: b"P6 11 15 4095\n" + scene(seed, 4095).astype(">u2").tobytes()),
    **{kind: (ending, make) for kind, (ending, make, _) in UNREAD.items()},
}
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "16-bit": ("png", encode(Image.fromarray(scene(1, 65535)[..., 0])), "above the 4,095 of levels=12; give the levels that it has"),
    "planar": ("tif", tiff(scene(2, 4095).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), "in separate planes"),
    "signed": ("tif", tiff(scene(3, 4095)[..., 0].astype(np.int16)), "signed numbers"),
    "jpeg xl": ("jxl", imagecodecs.jpegxl_encode(colour(4)), "a JPEG XL picture, which is not read"),
    "12-bit jpeg": ("jpg", imagecodecs.jpeg8_encode(scene(5, 4095), bitspersample=12), "a JPEG of a kind that is not read"),
    "webp in tiff": ("tif", tiff(colour(6), photometric="rgb", compression="webp"), "compressed as WebP, which is not read"),
    "dicom": ("dcm", bytes(128) + b"DICM" + bytes(100), "a DICOM file"),
    "page": ("png", b"<!DOCTYPE html><html></html>", "an HTML page; a download may have given"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_process_beside_the_predictor_decodes_as_all_others_do(kind: str, beside: DecoderProcess) -> None:
    spec, data = ImageSpec(9, 7, 3, LEVELS), KINDS[kind][1](1)
    pixels, number, unread = beside.decode(data, spec, 10**6, bool)
    assert np.array_equal(pixels, from_bytes(data, spec))
    assert unread == ((UNREAD[kind][2],) if kind in UNREAD else ())
    assert number == 15 * 11


@pytest.fixture(scope="module")
def beside() -> Iterator[DecoderProcess]:
    process = DecoderProcess(30)
    yield process
    process.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 12-bit grey pictures."""
    return tiny.write_bundle(tmp_path_factory.mktemp("twelve") / "bundle", levels=LEVELS)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, grpc_port: int) -> Iterator[httpx.Client]:
    folder = model_dir(tmp_path_factory.mktemp("served"), levels=LEVELS)
    served = predictor(NAME, folder, 60, "--enable_grpc", "true", "--grpc_port", str(grpc_port))
    with served as (_, started), httpx.Client(base_url=started.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def grpc_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def pictures_of_every_kind() -> dict[str, bytes]:
    """Four pictures of each kind in two classes."""
    return {
        f"{'ab'[seed % 2]}/{number}-{seed}.{ending}": make(seed)
        for number, (ending, make) in enumerate(KINDS.values())
        for seed in range(10 * number, 10 * number + 4)
    }


def files_with_a_table(root: Path, content: dict[str, bytes], table: str, text: str) -> Path:
    for name, data in content.items():
        put(root / "files" / name, data)
    return put(root / table, text)


def rows(content: dict[str, bytes], form: str) -> pa.Table:
    """The pictures as a column of bytes, or of structs as Hugging Face has them."""
    images = list(content.values()) if form == "bytes" else [{"bytes": data, "path": name} for name, data in content.items()]
    return pa.table({"image": images, "label": [name[0] for name in content]})


def written(path: Path, write: Callable[..., None], table: pa.Table) -> Path:
    path.parent.mkdir(exist_ok=True)
    write(table, path)
    return path


def saved_dataset(root: Path, content: dict[str, bytes]) -> Path:
    """A folder as Hugging Face's `save_to_disk` writes it."""
    table = rows(content, "structs")
    with pa.OSFile(str(put(root / "data-00000-of-00001.arrow")), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    put(root / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_format_type": None, "_split": None}))
    put(root / "dataset_info.json", json.dumps({"features": {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}}))
    return root


WAYS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": lambda root, content: zip_of(root / "x.zip", content),
    "tar": lambda root, content: tar_of(root / "x.tar", content),
    "packed tar": lambda root, content: tar_of(root / "x.tar.xz", content, "w:xz"),
    "csv": lambda root, content: files_with_a_table(
        root, content, "t.csv", "file;label\r\n" + "".join(f"files/{name};{name[0]}\r\n" for name in content)
    ),
    "jsonl": lambda root, content: files_with_a_table(
        root, content, "t.jsonl", "\n".join(json.dumps({"path": f"files/{name}", "class": name[0]}) for name in content)
    ),
    "webdataset": lambda root, content: tar_of(
        root / "w.tar",
        {f"{k:03d}.{name.rpartition('.')[2]}": data for k, (name, data) in enumerate(content.items())}
        | {f"{k:03d}.cls": name[0].encode() for k, name in enumerate(content)},
    ),
    "parquet": lambda root, content: written(root / "p.parquet", pq.write_table, rows(content, "bytes")),
    "parquet of structs": lambda root, content: written(root / "p.parquet", pq.write_table, rows(content, "structs")),
    "saved dataset": saved_dataset,
    "arrow": lambda root, content: written(root / "p.arrow", pyarrow.feather.write_feather, rows(content, "bytes")),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_source_gives_the_pixels_and_the_refusals_of_the_folder(way: str, run: Run, tmp_path: Path) -> None:
    content = pictures_of_every_kind() | {f"a/{number:02d}.{ending}": data for number, (ending, data, _) in enumerate(REFUSED.values())}
    names = [*content]

    def outcomes(source: Path) -> dict[str, bytes | str]:
        done = run(source, image_size=SIZE, channels=3, levels=LEVELS)
        found: dict[str, bytes | str] = {name: pixels.tobytes() for name, (_, pixels) in done.files().items()}
        return found | {entry["file"]: entry["reason"] for entry in done.info.set_aside}

    def name_of(shown: str) -> str:
        if "#" in shown:
            return names[int(shown.rpartition("#")[2])]
        return names[int(shown.partition(".")[0])] if way == "webdataset" else shown.removeprefix("files/")

    for name, data in content.items():
        put(tmp_path / "folder" / name, data)
    wanted = outcomes(tmp_path / "folder")
    assert wanted.keys() == content.keys()
    assert all(words in str(wanted[f"a/{number:02d}.{ending}"]) for number, (ending, _, words) in enumerate(REFUSED.values()))
    assert {name_of(shown): outcome for shown, outcome in outcomes(WAYS[way](tmp_path / "way", content)).items()} == wanted


def test_every_picture_gives_the_same_pixels_and_every_refusal_the_same_words_by_every_way_in(
    bundle: Path, client: httpx.Client, grpc_port: int, run: Run, score: Score, tmp_path: Path
) -> None:
    pictures = pictures_of_every_kind()
    refused = {f"a/{kind}.{ending}": data for kind, (ending, data, _) in REFUSED.items()}
    for name, data in {**pictures, **refused}.items():
        put(tmp_path / "data" / name, data)

    trained = run(tmp_path / "data", image_size=SIZE, channels=1, levels=LEVELS)
    twelve = publish(bundle, str(tmp_path / "store"))
    scored = score(tmp_path / "data", using=twelve, probabilities=True)
    rows = {row["input"]: row for row in scored.rows}
    served = {
        name: client.post(PREDICT, json={"instances": [{"b64": b64(data)}], "return_probabilities": True})
        for name, data in {**pictures, **refused}.items()
    }

    assert "In files of 16 bits per sample 4095 is the brightest value." in client.get("/openapi.json").json()["info"]["description"]
    files = trained.files()
    assert set(files) == set(pictures)
    classifier = Classifier(bundle, threads=1)
    for name, (_, pixels) in files.items():
        wanted = classifier.probabilities(pixels[None])[0]
        assert rows[name]["probabilities"] == pytest.approx(wanted, abs=1e-5), name
        answer = served[name].json()["predictions"][0]["probabilities"]
        assert [answer[label] for label in tiny.CLASSES] == pytest.approx(wanted, abs=1e-5), name
    raw = elements(*pictures.values())
    header = {
        "inputs": [tensor([len(pictures)], "BYTES", parameters={"binary_data_size": len(raw)})],
        "outputs": [{"name": "probabilities"}],
    }
    (output,) = client.post(INFER, **binary(header, raw)).json()["outputs"]
    request = messages.ModelInferRequest(model_name=NAME, raw_input_contents=[raw], outputs=[{"name": "probabilities"}])
    request.inputs.add(name="image", datatype="BYTES", shape=[len(pictures)])
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request)
    by_grpc = (
        np.frombuffer(answer.raw_output_contents[0], np.float32) if answer.raw_output_contents else answer.outputs[0].contents.fp32_contents
    )
    for by_picture in (output["data"], by_grpc):
        for name, probabilities in zip(pictures, np.reshape(by_picture, output["shape"]), strict=True):
            assert probabilities == pytest.approx(classifier.probabilities(files[name][1][None])[0], abs=1e-5), name
    assert (scored.summary.passed_over, scored.summary.passed_over_reasons) == (0, {})  # all have rows, those read without metadata too
    said_in_training = [line for line in trained.lines if "pictures with " in line]
    for what, words in metadata.UNREAD.items():
        of_kind = [kind for kind, (_, _, other) in UNREAD.items() if other == what]
        names = {name for name in pictures for kind in of_kind if name[2:].startswith(f"{[*KINDS].index(kind)}-")}
        assert len(names) == 4 * len(of_kind)
        assert {name for name, reason in scored.passed_over.items() if reason == words} == names
        assert f"{len(names)} pictures with {words}; _passed_over/ names them" in scored.summary.warnings
        assert scored.summary.unread_metadata[words] == len(names)
        (line,) = (line for line in said_in_training if f"{len(names)} pictures with {words}: " in line)
        assert sum(name in line for name in names) >= 3
        (counted,) = re.findall(rf'penstock_unread_metadata_total{{what="{what}"}} (\d+)', client.get("/metrics").text)
        assert int(counted) >= 3 * len(names)  # by V1, by V2 and by gRPC
    set_aside = {entry["file"]: entry["reason"] for entry in trained.info.set_aside}
    for kind, (ending, _, words) in REFUSED.items():
        name = f"a/{kind}.{ending}"
        assert words in set_aside[name]
        assert words in rows[name]["error"]
        assert (served[name].status_code, words in served[name].json()["error"]) == (400, True)
