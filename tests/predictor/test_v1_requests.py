"""V1 requests that are wrong, and base64 in the forms that clients send: told which picture and what was expected."""

import base64
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.predictor.versions import PREDICT, b64, error_of, png


def wrong(picture: np.ndarray) -> dict[str, tuple[object, str]]:
    good = picture.tolist()
    ragged = [row[:] for row in good]
    ragged[3] = ragged[3][:5]
    swapped = [row[:] for row in good]
    swapped[2][1], swapped[2][2] = [1, 2], []
    scaled = (picture / 255).tolist()

    def with_pixel(value: object) -> list:
        changed = [row[:] for row in good]
        changed[0][0] = [value]
        return changed

    return {
        "a list": ([good], "object"),
        "no instances": ({}, "instances"),
        "V2's key": ({"inputs": [good]}, "V2"),
        "instances an object": ({"instances": {"b64": "x"}}, "instances"),
        "no pictures": ({"instances": []}, "no pictures"),
        "a number": ({"instances": [7]}, "instances[0]"),
        "null": ({"instances": [good, None]}, "instances[1]"),
        "a string": ({"instances": ["iVBORw0KGgo="]}, "instances[0]"),
        "a flat picture": ({"instances": [picture.ravel().tolist()]}, "[8, 8, 1]"),
        "the picture itself": ({"instances": good}, "instances[0]"),
        "another size": ({"instances": [[[0] * 28] * 28]}, "[28, 28]"),
        "ragged": ({"instances": [good, ragged]}, "instances[1]"),
        "ragged pixels": ({"instances": [swapped]}, "instances[0]"),
        "empty": ({"instances": [[]]}, "instances[0]"),
        "deep": ({"instances": [[[[[good]]]]]}, "instances[0]"),
        "strings": ({"instances": [[["0"] * 8] * 8]}, "instances[0]"),
        "one string": ({"instances": [with_pixel("5")]}, "instances[0]"),
        "one boolean": ({"instances": [with_pixel(True)]}, "instances[0]"),
        "one null": ({"instances": [with_pixel(None)]}, "instances[0]"),
        "one object": ({"instances": [with_pixel({})]}, "instances[0]"),
        "above 255": ({"instances": [with_pixel(256)]}, "256"),
        "negative": ({"instances": [with_pixel(-1)]}, "-1"),
        "huge": ({"instances": [with_pixel(1e300)]}, "255"),
        "half": ({"instances": [with_pixel(0.5)]}, "0.5"),
        "scaled to 1": ({"instances": [scaled]}, "scale"),
        "floats of 0 and 1": ({"instances": [np.eye(8).tolist()]}, "scale"),
        "no b64": ({"instances": [{"picture": "x"}]}, "b64"),
        "a string under a name": ({"instances": [{"image_bytes": "x"}]}, "b64"),
        "nothing under a name": ({"instances": [{"data": {}}]}, "b64"),
        "b64 of null": ({"instances": [{"b64": None}]}, "b64"),
        "b64 of a list": ({"instances": [{"image_bytes": {"b64": ["x"]}}]}, "b64"),
        "an address": ({"instances": [{"url": "http:example"}]}, "b64"),
        "an HTML page": ({"instances": [{"b64": base64.b64encode(b"<!DOCTYPE html><p>Sign in").decode()}]}, "an HTML page"),
        "a git-lfs pointer": (
            {"instances": [{"b64": base64.b64encode(b"version https://git-lfs.github.com/spec/v1").decode()}]},
            "git lfs pull",
        ),
        "a shortcut": ({"instances": [{"b64": base64.b64encode(b"L\0\0\0\x01\x14\x02\0").decode()}]}, "a Windows shortcut"),
        "threshold a word": ({"instances": [good], "threshold": "high"}, "threshold"),
        "threshold true": ({"instances": [good], "threshold": True}, "threshold"),
        "threshold below 0": ({"instances": [good], "threshold": -0.1}, "threshold"),
        "wish a word": ({"instances": [good], "return_probabilities": "yes"}, "return_probabilities"),
        "parameters a list": ({"instances": [good], "parameters": [1]}, "parameters"),
    }


def test_wrong_requests_are_told_which_picture_and_what_was_expected(client: httpx.Client, pictures: np.ndarray) -> None:
    for name, (body, word) in wrong(pictures[0]).items():
        assert word in error_of(client.post(PREDICT, json=body)), name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"7",
        b'"a"',
        b"\xff\xfe{}",
        b'{"instances": [[NaN]]}',
        b"instances=1",
        b"<xml/>",
        b"\x89PNG\r\n",
        b"[" * 50_000,
    ],
)
def test_bodies_that_are_no_json_object_are_refused(client: httpx.Client, body: bytes) -> None:
    for path in (PREDICT, "/v2/models/digits/infer"):
        error_of(client.post(path, content=body, headers={"content-type": "application/json"}))


def test_zeros_are_black_in_every_scale(client: httpx.Client) -> None:
    answers = [client.post(PREDICT, json={"instances": [np.zeros((8, 8), kind).tolist()]}).json() for kind in (int, float)]
    assert answers[0] == answers[1]


@pytest.fixture(scope="module")
def picture() -> bytes:
    return png(np.random.default_rng(5).integers(0, 256, (61, 97), dtype=np.uint8))


def forms(picture: bytes) -> dict[str, str]:
    text = b64(picture)
    assert "+" in text
    assert "/" in text
    return {
        "data URI": "data:image/png;base64," + text,
        "data URI with charset": "data:image/png;charset=utf-8;base64," + text,
        "line breaks": "\n".join(text[i : i + 76] for i in range(0, len(text), 76)),
        "MIME": base64.encodebytes(picture).decode().replace("\n", "\r\n"),
        "URL-safe": base64.urlsafe_b64encode(picture).decode(),
        "URL-safe without padding": base64.urlsafe_b64encode(picture).decode().rstrip("="),
        "no padding": text.rstrip("="),
    }


@pytest.mark.parametrize("wrapped", [False, True])
def test_usual_forms_of_base64_are_one_picture(client: httpx.Client, picture: bytes, wrapped: bool) -> None:
    def ask(text: object) -> httpx.Response:
        instance = {"image_bytes": {"b64": text}} if wrapped else {"b64": text}
        return client.post(PREDICT, json={"instances": [instance], "return_probabilities": True})

    plain = ask(b64(picture)).json()
    for name, text in forms(picture).items():
        assert ask(text).json() == plain, name
    text = b64(picture)
    damaged = {
        "plus as space": text.replace("+", " ", 1),
        "cut": text[: len(text) // 2],
        "cut near the end": text[:-64],
        "quoted": f'"{text}"',
        "empty": "",
        "only padding": "====",
        "not a picture": b64(b"hello"),
        "hex": picture.hex(),
        "foreign letters": "ü" + text,
        "zero byte": text[:100] + "\0" + text[100:],
        "twice": text + text,
        "a number": 7,
    }
    for name, value in damaged.items():
        assert "instances[0]" in error_of(ask(value)), name


def test_damaged_pictures_are_never_answered(client: httpx.Client, picture: bytes) -> None:
    bad_sum = bytearray(picture)
    bad_sum[-20] ^= 0xFF
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    path_like = b"/etc/passwd"
    for data in (picture[: len(picture) // 2], picture[:40], bytes(bad_sum), path_like, b"GIF89a", b"\xff\xd8\xff\xe0"):
        assert "instances[1]" in error_of(client.post(PREDICT, json={"instances": [{"b64": b64(picture)}, {"b64": b64(data)}]}))
    import io

    buffer = io.BytesIO()
    floats.save(buffer, "TIFF")
    assert "floating point" in error_of(client.post(PREDICT, json={"instances": [{"b64": b64(buffer.getvalue())}]}))


def test_json_may_be_written_in_any_way(client: httpx.Client, pictures: np.ndarray) -> None:
    body = {"instances": [pictures[0].tolist()]}
    plain = client.post(PREDICT, json=body).json()
    for content in (json.dumps(body, indent=4), "\n\t " + json.dumps(body) + "\r\n", json.dumps(body).replace("255", "2.55e2")):
        assert client.post(PREDICT, content=content).json() == plain
