"""What the predictor answers to good requests: the same by every way in."""

import json

import httpx
import numpy as np
import pytest
from PIL import Image

from components.bundle.model import Classifier
from components.classifier.images import from_bytes
from tests.predictor.versions import INFER, PREDICT, b64, binary, elements, png, tensor

WANTED = [{"name": "label"}, {"name": "confidence"}, {"name": "needs_review"}, {"name": "probabilities"}]


def v1_rows(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([list(entry["probabilities"].values()) for entry in response.json()["predictions"]])


def v2_rows(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    output = next(output for output in response.json()["outputs"] if output["name"] == "probabilities")
    return np.array(output["data"]).reshape(output["shape"])


def test_the_same_picture_gives_the_same_probabilities_by_every_way_in(
    client: httpx.Client, pictures: np.ndarray, expected: np.ndarray
) -> None:
    encoded, raw, n = [png(p) for p in pictures], pictures.tobytes(), len(pictures)
    v1_forms = {
        "nested": pictures.tolist(),
        "grey without channel": pictures[..., 0].tolist(),
        "b64": [{"b64": b64(data)} for data in encoded],
        "image_bytes": [{"image_bytes": {"b64": b64(data)}} for data in encoded],
        "whole floats": pictures.astype(float).tolist(),
    }
    rows = {
        f"v1 {form}": v1_rows(client.post(PREDICT, json={"instances": instances, "return_probabilities": True}))
        for form, instances in v1_forms.items()
    }
    shape, data = [n, 8, 8, 1], elements(*encoded)
    floats = pictures.astype("<f4")
    v2_forms = {
        "json flat": {"json": {"inputs": [tensor(shape, data=pictures.ravel().tolist())], "outputs": WANTED}},
        "json nested": {"json": {"inputs": [tensor(shape, data=pictures.tolist())], "outputs": WANTED}},
        "json fp32": {"json": {"inputs": [tensor(shape, "FP32", data=floats.ravel().tolist())], "outputs": WANTED}},
        "json pictures": {"json": {"inputs": [tensor([n], "BYTES", data=[b64(d) for d in encoded])], "outputs": WANTED}},
        "binary": binary({"inputs": [tensor(shape, parameters={"binary_data_size": len(raw)})], "outputs": WANTED}, raw),
        "binary fp32": binary(
            {"inputs": [tensor(shape, "FP32", parameters={"binary_data_size": floats.nbytes})], "outputs": WANTED}, floats.tobytes()
        ),
        "binary grey": binary({"inputs": [tensor([n, 8, 8], parameters={"binary_data_size": len(raw)})], "outputs": WANTED}, raw),
        "binary pictures": binary(
            {"inputs": [tensor([n, 1], "BYTES", parameters={"binary_data_size": len(data)})], "outputs": WANTED}, data
        ),
    }
    rows |= {f"v2 {form}": v2_rows(client.post(INFER, **content)) for form, content in v2_forms.items()}
    for way, found in rows.items():
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=way)


def test_pictures_of_any_size_and_kind_are_prepared_as_everywhere(client: httpx.Client, served_dir, pictures: np.ndarray) -> None:
    big = Image.fromarray(pictures[3, :, :, 0]).resize((97, 61), Image.Resampling.BICUBIC)
    deep = Image.fromarray(np.asarray(big).astype(np.uint16) * 257)
    clear = big.convert("RGB")
    clear.putalpha(Image.fromarray(np.asarray(big)))
    classifier = Classifier(served_dir, threads=1)
    for image, form, options in ((big, "PNG", {}), (deep, "PNG", {}), (clear, "PNG", {}), (big.convert("RGB"), "JPEG", {"quality": 90})):
        path = served_dir.parent / "picture"
        image.save(path, form, **options)
        wanted = classifier.probabilities(from_bytes(path.read_bytes(), classifier.spec)[None])
        response = client.post(PREDICT, json={"instances": [{"b64": b64(path.read_bytes())}], "return_probabilities": True})
        np.testing.assert_allclose(v1_rows(response), wanted, atol=1e-6)


def test_v1_names_label_confidence_doubt_model_and_version(
    client: httpx.Client, pictures: np.ndarray, expected: np.ndarray, served_dir
) -> None:
    document = client.post(PREDICT, json={"instances": pictures.tolist()}).json()
    assert document["model_name"] == "digits"
    assert document["model_version"] == json.loads((served_dir / "manifest.json").read_text())["version"]
    for entry, row in zip(document["predictions"], expected, strict=True):
        assert set(entry) == {"label", "confidence", "needs_review"}
        assert entry["label"] == str(row.argmax())
        assert entry["confidence"] == pytest.approx(row.max(), abs=1e-6)
        assert entry["needs_review"] == (row.max() < 0.8)


@pytest.mark.parametrize("place", ["beside", "parameters"])
def test_a_request_may_set_its_own_bound_of_doubt(client: httpx.Client, pictures: np.ndarray, place: str) -> None:
    for bound, doubtful in ((0, False), (1, True), (1.0, True)):
        wishes = {"threshold": bound} if place == "beside" else {"parameters": {"threshold": bound}}
        document = client.post(PREDICT, json={"instances": pictures[:2].tolist(), **wishes}).json()
        assert [entry["needs_review"] for entry in document["predictions"]] == [doubtful] * 2


def test_v2_takes_the_wishes_as_parameters(client: httpx.Client, pictures: np.ndarray) -> None:
    body = {
        "inputs": [tensor([1, 8, 8, 1], data=pictures[0].ravel().tolist())],
        "parameters": {"return_probabilities": True, "threshold": 1},
    }
    outputs = {output["name"]: output for output in client.post(INFER, json=body).json()["outputs"]}
    assert outputs["needs_review"]["data"] == [True]
    assert outputs["probabilities"]["shape"] == [1, 10]


def test_the_bodys_type_does_not_matter_as_long_as_it_is_json(client: httpx.Client, pictures: np.ndarray) -> None:
    body = json.dumps({"instances": [pictures[0].tolist()]})
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8", None):
        headers = {} if kind is None else {"content-type": kind}
        assert client.post(PREDICT, content=body, headers=headers).status_code == 200


def test_request_ids_come_back(client: httpx.Client, pictures: np.ndarray) -> None:
    body = {"instances": [pictures[0].tolist()]}
    assert client.post(PREDICT, json=body, headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = {client.post(PREDICT, json=body).headers["x-request-id"] for _ in range(3)}
    good, wrong = client.post(PREDICT, json=body), client.post(PREDICT, json={})
    assert (good.status_code, wrong.status_code) == (200, 400)
    assert set(good.headers) == set(wrong.headers) == {"date", "content-type", "content-length", "x-request-id"}
    assert len(made) == 3
    for odd in ("a b", "x" * 200, "ü"):
        answer = client.post(PREDICT, json=body, headers={"x-request-id": odd.encode()})
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] != odd


def test_metadata_names_version_tensors_and_classes(client: httpx.Client, served_dir) -> None:
    document = client.get("/v2/models/digits").json()
    version = json.loads((served_dir / "manifest.json").read_text())["version"]
    assert (document["name"], document["versions"], document["platform"]) == ("digits", [version], "onnxruntime_onnx")
    assert document["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert [output["name"] for output in document["outputs"]] == ["label", "confidence", "needs_review", "probabilities"]
    assert document["classes"] == [str(digit) for digit in range(10)]
    assert client.get(f"/v2/models/digits/versions/{version}").json() == document
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v1/models").json() == client.get("/v2/models").json() == {"models": ["digits"]}
