"""The V2 protocol's fine print: ids, wished outputs, binary data both ways, and clients that count wrongly."""

import json
import struct

import httpx
import numpy as np
import pytest

from tests.predictor.versions import INFER, b64, binary, elements, error_of, png, tensor


@pytest.fixture
def good(pictures: np.ndarray) -> dict:
    return {"inputs": [tensor([1, 8, 8, 1], data=pictures[0].ravel().tolist())]}


def test_an_id_is_made_where_none_came_and_echoed_otherwise(client: httpx.Client, good: dict) -> None:
    assert client.post(INFER, json=good).json()["id"]
    assert client.post(INFER, json={**good, "id": None}).json()["id"]
    assert client.post(INFER, json={**good, "id": "a"}).json()["id"] == "a"
    for wrong in (7, True, ["a"], {}):
        assert "id" in error_of(client.post(INFER, json={**good, "id": wrong}))


def test_extra_fields_are_left_alone(client: httpx.Client, good: dict) -> None:
    good["inputs"][0] |= {"extra": 1, "parameters": {"content_type": "np"}}
    assert client.post(INFER, json={**good, "more": {"a": []}, "parameters": {"priority": 1}}).status_code == 200


def test_outputs_are_those_wished_in_their_order(client: httpx.Client, good: dict) -> None:
    names = ["probabilities", "label"]
    document = client.post(INFER, json={**good, "outputs": [{"name": name} for name in names]}).json()
    assert [output["name"] for output in document["outputs"]] == names
    for default in ({}, {"outputs": []}, {"outputs": None}):
        document = client.post(INFER, json={**good, **default}).json()
        assert [output["name"] for output in document["outputs"]] == ["label", "confidence", "needs_review"]


@pytest.mark.parametrize("outputs", [[{"name": "logits"}], [{}], ["label"], "label", {"name": "label"}, [{"name": ["label"]}], 3])
def test_unknown_outputs_are_refused(client: httpx.Client, good: dict, outputs: object) -> None:
    assert "outputs" in error_of(client.post(INFER, json={**good, "outputs": outputs}))


def read_binary(response: httpx.Response) -> tuple[dict, dict[str, bytes]]:
    length = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    header, rest, blobs = json.loads(response.content[:length]), response.content[length:], {}
    for output in header["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            assert "data" not in output
            blobs[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return header, blobs


def test_a_wish_for_binary_holds_for_the_outputs_that_are_listed(client: httpx.Client, good: dict, expected: np.ndarray) -> None:
    names = ["label", "confidence", "needs_review", "probabilities"]
    body = {**good, "parameters": {"binary_data_output": True}, "outputs": [{"name": name} for name in names]}
    header, blobs = read_binary(client.post(INFER, json=body))
    assert list(blobs) == names
    assert [output["datatype"] for output in header["outputs"]] == ["BYTES", "FP32", "BOOL", "FP32"]
    label = str(expected[0].argmax()).encode()
    assert blobs["label"] == struct.pack("<I", len(label)) + label
    np.testing.assert_allclose(np.frombuffer(blobs["probabilities"], "<f4"), expected[0], atol=1e-6)
    np.testing.assert_allclose(np.frombuffer(blobs["confidence"], "<f4"), expected[0].max(), atol=1e-6)
    assert blobs["needs_review"] == bytes([int(expected[0].max() < 0.8)])


def test_an_output_may_differ_from_the_requests_wish(client: httpx.Client, good: dict) -> None:
    outputs = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "confidence"}]
    _, blobs = read_binary(client.post(INFER, json={**good, "parameters": {"binary_data_output": True}, "outputs": outputs}))
    assert list(blobs) == ["confidence"]


@pytest.mark.parametrize("value", [1, "true", None, []])
def test_binary_wishes_are_true_or_false(client: httpx.Client, good: dict, value: object) -> None:
    assert "binary_data" in error_of(client.post(INFER, json={**good, "parameters": {"binary_data_output": value}}))


def test_a_version_in_the_path_must_be_the_one_that_serves(client: httpx.Client, good: dict) -> None:
    version = client.get("/v2/models/digits").json()["versions"][0]
    assert client.post(f"/v2/models/digits/versions/{version}/infer", json=good).status_code == 200
    assert version in error_of(client.post("/v2/models/digits/versions/1/infer", json=good), 404)
    assert client.get(f"/v2/models/digits/versions/{version}/ready").status_code == 200
    error_of(client.get("/v2/models/digits/versions/1/ready"), 404)
    error_of(client.get("/v2/models/digits/versions/1"), 404)


def wrong_binary(picture: np.ndarray) -> dict[str, tuple[dict, str]]:
    """What clients send wrongly, and a word that the answer must have."""
    raw, encoded = picture.tobytes(), png(picture)
    head = {"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": 64})]}
    data = elements(encoded)
    of_bytes = {"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": len(data)})]}
    size = len(json.dumps(head))
    no_length = binary(head, raw)
    del no_length["headers"]["inference-header-content-length"]
    return {
        "no header length": (no_length, "Inference-Header-Content-Length"),
        "header length too large": (binary(head, raw, 10**9), str(size + 64)),
        "header length negative": (binary(head, raw, -1), "whole number"),
        "header length a word": (binary(head, raw, "many"), "whole number"),
        "header length zero": (binary(head, raw, 0), str(size + 64)),
        "header length too short": (binary(head, raw, 20), "JSON"),
        "header length of many digits": (binary(head, raw, "1" * 5000), "whole number"),
        "header length as float": (binary(head, raw, "1e2"), "whole number"),
        "header length in superscript": (binary(head, raw, "\u00b2".encode("latin-1")), "whole number"),
        "one byte less": (binary(head, raw[:-1]), "63"),
        "one byte more": (binary(head, raw + b"\0"), "65"),
        "size is not the shape's": (binary({"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": 60})]}, raw[:60]), "60"),
        "size is huge": (binary({"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": 2**62})]}, raw), str(2**62)),
        "size is a word": (binary({"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": "64"})]}, raw), "binary_data_size"),
        "size is negative": (binary({"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": -64})]}, raw), "binary_data_size"),
        "data and raw": (
            binary({"inputs": [tensor([1, 8, 8, 1], data=picture.ravel().tolist(), parameters={"binary_data_size": 64})]}, raw),
            "both",
        ),
        "JSON text as raw": (binary(head, json.dumps(list(raw)).encode()), "follow"),
        "picture without prefix": (
            binary({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": len(encoded)})]}, encoded),
            "length before each",
        ),
        "prefix too large": (binary(of_bytes, struct.pack("<I", 2**31) + encoded), str(2**31)),
        "prefix cut": (binary({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": 2})]}, b"\1\0"), "length before each"),
        "two said, one sent": (
            binary({"inputs": [tensor([2], "BYTES", parameters={"binary_data_size": len(data)})]}, data),
            "2 elements, but 1",
        ),
        "raw that nobody announced": (binary({"inputs": [tensor([1, 8, 8, 1], data=picture.ravel().tolist())]}, raw), "64"),
        "FP32 said, UINT8 sent": (binary({"inputs": [tensor([1, 8, 8, 1], "FP32", parameters={"binary_data_size": 64})]}, raw), "256"),
        "only zeros as BYTES": (
            binary({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": 8000})]}, bytes(8000)),
            "1 elements",
        ),
    }


def test_binary_bodies_that_are_counted_wrongly_are_told_what_was_expected(client: httpx.Client, pictures: np.ndarray) -> None:
    for name, (content, word) in wrong_binary(pictures[0]).items():
        assert word in error_of(client.post(INFER, **content)), name


def test_binary_size_without_binary_body_is_refused(client: httpx.Client) -> None:
    body = {"inputs": [tensor([1, 8, 8, 1], parameters={"binary_data_size": 64})]}
    assert "Inference-Header-Content-Length" in error_of(client.post(INFER, json=body))


def wrong_json(picture: np.ndarray) -> dict[str, tuple[object, str]]:
    flat = picture.ravel().tolist()
    good = tensor([1, 8, 8, 1], data=flat)
    floats = (picture / 255).ravel().tolist()
    return {
        "no inputs": ({}, "inputs"),
        "inputs an object": ({"inputs": good}, "inputs"),
        "two inputs": ({"inputs": [good, good]}, "inputs"),
        "no input": ({"inputs": []}, "inputs"),
        "an input of null": ({"inputs": [None]}, "inputs"),
        "name a number": ({"inputs": [{**good, "name": 1}]}, "name"),
        "no data": ({"inputs": [tensor([1, 8, 8, 1])]}, "data"),
        "data a string": ({"inputs": [tensor([1, 8, 8, 1], data="0" * 64)]}, "data"),
        "data of strings": ({"inputs": [tensor([1, 8, 8, 1], data=["0"] * 64)]}, "data"),
        "data of booleans": ({"inputs": [tensor([1, 8, 8, 1], data=[True] * 64)]}, "data"),
        "data of nulls": ({"inputs": [tensor([1, 8, 8, 1], data=[None] * 64)]}, "data"),
        "one number less": ({"inputs": [tensor([1, 8, 8, 1], data=flat[1:])]}, "64"),
        "ragged": ({"inputs": [tensor([1, 8, 8, 1], data=[flat[:8], flat[8:]])]}, "64"),
        "shape without batch": ({"inputs": [tensor([8, 8, 1], data=flat)]}, "[N, 8, 8, 1]"),
        "other shape": ({"inputs": [tensor([1, 1, 8, 8], data=flat)]}, "[N, 8, 8, 1]"),
        "negative shape": ({"inputs": [tensor([-1, 8, 8, 1], data=flat)]}, "shape"),
        "shape of floats": ({"inputs": [tensor([1.0, 8, 8, 1], data=flat)]}, "shape"),
        "shape of booleans": ({"inputs": [tensor([True, 8, 8, 1], data=flat)]}, "shape"),
        "shape a number": ({"inputs": [tensor(64, data=flat)]}, "shape"),
        "empty shape": ({"inputs": [tensor([], data=flat)]}, "shape"),
        "huge shape": ({"inputs": [tensor([10**12, 8, 8, 1], data=flat)]}, "limit"),
        "long shape": ({"inputs": [tensor([1] * 1000, data=flat)]}, "shape"),
        "no pictures": ({"inputs": [tensor([0, 8, 8, 1], data=[])]}, "no pictures"),
        "another type": ({"inputs": [tensor([1, 8, 8, 1], "BOOL", data=flat)]}, "UINT8"),
        "FP32 of zeros and whole ones": ({"inputs": [tensor([1, 8, 8, 1], "FP32", data=[0, 1] * 32)]}, "scale"),
        "a type in small letters": ({"inputs": [tensor([1, 8, 8, 1], "uint8", data=flat)]}, "UINT8"),
        "FP32 scaled to 1": ({"inputs": [tensor([1, 8, 8, 1], "FP32", data=floats)]}, "scale"),
        "FP32 of zeros and ones": ({"inputs": [tensor([1, 8, 8, 1], "FP32", data=[0.0, 1.0] * 32)]}, "scale"),
        "FP32 too large": ({"inputs": [tensor([1, 8, 8, 1], "FP32", data=[256.0] * 64)]}, "255"),
        "FP32 beyond all": ({"inputs": [tensor([1, 8, 8, 1], "FP32", data=[1e39] * 64)]}, "255"),
        "UINT8 too large": ({"inputs": [tensor([1, 8, 8, 1], data=[256] * 64)]}, "255"),
        "UINT8 negative": ({"inputs": [tensor([1, 8, 8, 1], data=[-1] * 64)]}, "255"),
        "UINT8 beyond 64 bits": ({"inputs": [tensor([1, 8, 8, 1], data=[2**70] * 64)]}, "255"),
        "BYTES of numbers": ({"inputs": [tensor([1], "BYTES", data=[1])]}, "base64"),
        "BYTES of a matrix": ({"inputs": [tensor([1, 8, 8, 1], "BYTES", data=["a"])]}, "[N]"),
        "BYTES that are no picture": ({"inputs": [tensor([1], "BYTES", data=[b64(b"hello")])]}, "element 0"),
        "parameters a list": ({"inputs": [good], "parameters": []}, "parameters"),
        "threshold above 1": ({"inputs": [good], "parameters": {"threshold": 1.5}}, "threshold"),
        "wish as a number": ({"inputs": [good], "parameters": {"return_probabilities": 1}}, "return_probabilities"),
    }


def test_wrong_v2_json_is_told_what_was_expected(client: httpx.Client, pictures: np.ndarray) -> None:
    for name, (body, word) in wrong_json(pictures[0]).items():
        status = 413 if name == "huge shape" else 400
        assert word in error_of(client.post(INFER, json=body), status), name


def test_nan_in_binary_floats_is_refused(client: httpx.Client) -> None:
    for value in (np.nan, np.inf, -np.inf):
        floats = np.full(64, value, "<f4")
        head = {"inputs": [tensor([1, 8, 8, 1], "FP32", parameters={"binary_data_size": floats.nbytes})]}
        assert "NaN" in error_of(client.post(INFER, **binary(head, floats.tobytes())))


@pytest.mark.parametrize("datatype", ["UINT16", "INT32", "INT64", "FP16", "FP64"])
def test_other_numbers_are_taken_when_they_are_whole_and_bytes(client: httpx.Client, pictures: np.ndarray, datatype: str) -> None:
    plain = client.post(INFER, json={"inputs": [tensor([1, 8, 8, 1], data=pictures[0].ravel().tolist())]}).json()["outputs"]
    values = pictures[0].astype(f"<{'f' if datatype[0] == 'F' else datatype[0].lower()}{int(datatype.lstrip('UINTFP')) // 8}")
    head = {"inputs": [tensor([1, 8, 8, 1], datatype, parameters={"binary_data_size": values.nbytes})]}
    assert client.post(INFER, **binary(head, values.tobytes())).json()["outputs"] == plain
    assert client.post(INFER, json={"inputs": [tensor([1, 8, 8, 1], datatype, data=values.ravel().tolist())]}).json()["outputs"] == plain


def test_what_other_servers_examples_say_works_here_too(client: httpx.Client, pictures: np.ndarray) -> None:
    data = [b64(png(picture)) for picture in pictures[:2]]
    plain = client.post(INFER, json={"inputs": [tensor([2], "BYTES", data=data)]}).json()["outputs"]
    as_torchserve = {**tensor([-1], "BYTES", data=data), "name": "4b7c7d4a-51e4-43c8-af61-04639f6ef4bc"}
    assert client.post(INFER, json={"id": "1", "inputs": [as_torchserve]}).json()["outputs"] == plain
    raw = elements(*[png(picture) for picture in pictures[:2]])
    head = {"inputs": [tensor([-1], "BYTES", parameters={"binary_data_size": len(raw)})]}
    assert client.post(INFER, **binary(head, raw)).json()["outputs"] == plain
    one = {"b64": data[0]}
    wrapped = [one, {"image": one}, {"image_bytes": one, "key": "1"}, {"data": data[0], "target": 0}, data[0]]
    body = {"signature_name": "serving_default", "instances": wrapped}
    answers = client.post("/v1/models/digits:predict", json=body).json()["predictions"]
    assert answers == [answers[0]] * 5
    assert answers[0]["label"] == plain[0]["data"][0]
