"""Clients that other people wrote: KServe's own, Triton's, over HTTP and gRPC."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.http
from grpc_interceptor import exceptions
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput
from prometheus_client import CollectorRegistry

from components.predictor.dispatch import Dispatcher
from components.predictor.grpc import Receiver, Servicer
from components.predictor.loaded_model import load
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.settings import PredictorSettings
from components.validate_serving.predictor_process import PredictorProcess, predictor
from tests.predictor.versions import NAME, b64, png

WANTED = ["label", "probabilities"]


def infer_input(pictures: np.ndarray, binary: bool) -> InferInput:
    tensor = InferInput("image", list(pictures.shape), "UINT8")
    tensor.set_data_from_numpy(pictures, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [False, True])
def test_kserves_rest_client_speaks_v2(url: str, pictures: np.ndarray, expected: np.ndarray, binary: bool) -> None:
    async def ask() -> object:
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, NAME)
        outputs = [RequestedOutput(name, {"binary_data": binary}) for name in WANTED]
        request = InferRequest(NAME, [infer_input(pictures, binary)], request_id="k-1", request_outputs=outputs)
        answer = await client.infer(url, request, model_name=NAME)
        await client.close()
        return answer

    answer = asyncio.run(ask())
    assert answer.id == "k-1"
    np.testing.assert_allclose(answer.get_output_by_name("probabilities").as_numpy(), expected, atol=1e-6)


def test_kserves_rest_client_speaks_v1(url: str, pictures: np.ndarray, expected: np.ndarray) -> None:
    async def ask() -> dict:
        client = InferenceRESTClient(RESTConfig(protocol="v1", timeout=60))
        assert await client.is_server_live(url)
        assert await client.is_model_ready(url, NAME)
        answer = await client.infer(url, {"instances": [{"b64": b64(png(p))} for p in pictures]}, model_name=NAME)
        await client.close()
        return answer

    assert [entry["label"] for entry in asyncio.run(ask())["predictions"]] == [str(row.argmax()) for row in expected]


@pytest.mark.parametrize("binary", [False, True])
def test_tritons_http_client_works(url: str, pictures: np.ndarray, expected: np.ndarray, binary: bool) -> None:
    client = tritonclient.http.InferenceServerClient(urlsplit(url).netloc)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    version = client.get_model_metadata(NAME)["versions"][0]
    assert client.is_model_ready(NAME, version)
    assert client.get_server_metadata()["name"] == "penstock-predictor"
    tensor = tritonclient.http.InferInput("image", list(pictures.shape), "UINT8")
    tensor.set_data_from_numpy(pictures, binary_data=binary)
    outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=binary) for name in WANTED]
    answer = client.infer(NAME, [tensor], model_version=version, outputs=outputs, request_id="t-1")
    assert answer.get_response()["id"] == "t-1"
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
    labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label").tolist()]
    assert labels == [str(row.argmax()) for row in expected]


def test_tritons_http_client_sends_pictures_and_takes_all_outputs_as_bytes(url: str, pictures: np.ndarray, expected: np.ndarray) -> None:
    client = tritonclient.http.InferenceServerClient(urlsplit(url).netloc)
    data = np.array([png(picture) for picture in pictures], dtype=np.object_)
    tensor = tritonclient.http.InferInput("image", [len(data)], "BYTES")
    tensor.set_data_from_numpy(data)
    answer = client.infer(NAME, [tensor])
    np.testing.assert_allclose(answer.as_numpy("confidence"), expected.max(axis=1), atol=1e-6)
    assert answer.as_numpy("needs_review").tolist() == (expected.max(axis=1) < 0.8).tolist()


@pytest.fixture(scope="module")
def grpc_server(served_dir: Path) -> Iterator[tuple[PredictorProcess, str]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with predictor(NAME, served_dir, 60, "--enable_grpc", "true", "--grpc_port", str(port), "--drain_seconds", "0") as (process, _):
        yield process, f"127.0.0.1:{port}"


@pytest.fixture
def grpc_address(grpc_server: tuple[PredictorProcess, str]) -> str:
    return grpc_server[1]


@pytest.mark.parametrize("binary", [False, True])
def test_kserves_grpc_client_gets_the_same_answers(grpc_address: str, pictures: np.ndarray, expected: np.ndarray, binary: bool) -> None:
    async def ask() -> object:
        client = InferenceGRPCClient(grpc_address, timeout=60)
        assert await client.is_server_ready()
        assert await client.is_model_ready(NAME)
        request = InferRequest(
            NAME, [infer_input(pictures, binary)], request_id="g-1", request_outputs=[RequestedOutput(name) for name in WANTED]
        )
        answer = await client.infer(request)
        await client.close()
        return answer

    answer = asyncio.run(ask())
    assert answer.id == "g-1"
    assert answer.model_version
    np.testing.assert_allclose(answer.get_output_by_name("probabilities").as_numpy(), expected, atol=1e-6)


@pytest.fixture
def stub(grpc_address: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(grpc_address) as channel:
        yield GRPCInferenceServiceStub(channel)


def grpc_request(pictures: np.ndarray, datatype: str = "UINT8", raw: bytes | None = None) -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name=NAME)
    request.inputs.add(name="image", datatype=datatype, shape=list(pictures.shape))
    request.raw_input_contents.append(pictures.tobytes() if raw is None else raw)
    return request


def test_grpc_refuses_what_http_refuses_and_goes_on(stub: GRPCInferenceServiceStub, pictures: np.ndarray) -> None:
    wrong = {
        "cut": grpc_request(pictures, raw=pictures.tobytes()[:-1]),
        "other type": grpc_request(pictures, "INT64"),
        "scaled": grpc_request((pictures / 255).astype("<f4"), "FP32"),
        "no input": messages.ModelInferRequest(model_name=NAME),
    }
    for name, request in wrong.items():
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, name
        assert "Traceback" not in caught.value.details()
    other = grpc_request(pictures)
    other.model_name = "other"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(other)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert stub.ModelInfer(grpc_request(pictures)).model_name == NAME


def test_grpc_has_the_rules_of_http(stub: GRPCInferenceServiceStub, url: str, client: httpx.Client, pictures: np.ndarray) -> None:
    """One table for both protocols: what is asked, by gRPC and by HTTP, and how it ends."""
    version = client.get(f"/v2/models/{NAME}").json()["versions"][0]
    codes = {
        200: grpc.StatusCode.OK,
        400: grpc.StatusCode.INVALID_ARGUMENT,
        404: grpc.StatusCode.NOT_FOUND,
        413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    many = np.zeros((257, 8, 8, 1), np.uint8)
    table = [
        ({}, pictures, 200),
        ({"model_version": version}, pictures, 200),
        ({"model_version": "20200101-000000-000000000000"}, pictures, 404),
        ({"model_name": "other"}, pictures, 404),
        ({"input": "pixels"}, pictures, 200),  # the model has one input, whatever its name
        ({"output": "label"}, pictures, 200),
        ({"output": "other"}, pictures, 400),
        ({}, many, 413),
        ({}, pictures[:, :4], 400),
    ]
    for change, images, status in table:
        message = grpc_request(images)
        message.model_name, message.model_version = change.get("model_name", NAME), change.get("model_version", "")
        message.inputs[0].name = change.get("input", "image")
        outputs = [{"name": change["output"]}] if "output" in change else []
        for output in outputs:
            message.outputs.add(**output)
        try:
            code = stub.ModelInfer(message) and grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        assert code is codes[status], (change, images.shape)
        path = f"/v2/models/{message.model_name}" + (f"/versions/{message.model_version}" if message.model_version else "") + "/infer"
        tensor = {"name": message.inputs[0].name, "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
        answer = client.post(path, json={"inputs": [tensor], "outputs": outputs})
        assert answer.status_code == status, (change, answer.text)


def test_grpc_describes_server_and_model_as_http_does(stub: GRPCInferenceServiceStub, client: httpx.Client) -> None:
    server = stub.ServerMetadata(messages.ServerMetadataRequest())
    assert {"name": server.name, "version": server.version, "extensions": list(server.extensions)} == client.get("/v2").json()
    http = client.get(f"/v2/models/{NAME}").json()
    model = stub.ModelMetadata(messages.ModelMetadataRequest(name=NAME, version=http["versions"][0]))
    assert list(model.versions) == http["versions"]
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*model.inputs, *model.outputs)] == [
        (tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in (*http["inputs"], *http["outputs"])
    ]
    assert stub.ModelReady(messages.ModelReadyRequest(name=NAME, version=http["versions"][0])).ready
    for request, call in ((messages.ModelReadyRequest, stub.ModelReady), (messages.ModelMetadataRequest, stub.ModelMetadata)):
        with pytest.raises(grpc.RpcError) as caught:
            call(request(name=NAME, version="1"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_grpc_counts_its_requests_and_refuses_messages_beyond_the_limit(stub: GRPCInferenceServiceStub, pictures: np.ndarray) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(grpc_request(np.zeros((9_000_000,), np.uint8)))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(grpc_request(pictures)).model_name == NAME


def field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message, with bytes as its value."""
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7 & 127 | 128, len(data) >> 14])
    return bytes([number << 3 | 2]) + size + data


NUMBERS = field(1, b"image") + field(2, b"INT64") + field(3, b"\1\x08\x08\1") + field(5, field(3, bytes(1_000_000)))
"""A tensor of a million numbers, of a byte each, that says it is one picture."""


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (field(1, NAME.encode()) + field(5, b"") * 100_000, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (field(1, NAME.encode()) + field(4, field(1, b"a")) * 100_000, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (field(1, NAME.encode()) + field(5, field(5, field(8, b"") * 100_000)), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (field(1, NAME.encode()) + field(5, NUMBERS), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (field(1, NAME.encode()) + b"\x2a\xff\xff\xff\x7f" + bytes(100_000), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"\x0b" * 100_000, grpc.StatusCode.INVALID_ARGUMENT),
        (b"\xff" * 100_000, grpc.StatusCode.INVALID_ARGUMENT),
        (b"\xff" * 100, grpc.StatusCode.INVALID_ARGUMENT),
        (field(1, NAME.encode()) + b"\x2a\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["tensors", "parameters", "elements", "numbers", "a length beyond the end", "groups", "not a message", "a short one", "cut"],
)
def test_grpc_messages_that_cost_more_than_their_bytes_or_are_none_are_refused(
    grpc_address: str, pictures: np.ndarray, message: bytes, code: grpc.StatusCode
) -> None:
    with grpc.insecure_channel(grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message)
        assert caught.value.code() is code
        assert GRPCInferenceServiceStub(channel).ModelInfer(grpc_request(pictures)).model_name == NAME


def test_grpc_refuses_compressed_messages_as_http_does(stub: GRPCInferenceServiceStub, pictures: np.ndarray) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(grpc_request(pictures), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in caught.value.details()


def test_grpc_messages_count_to_the_bytes_of_all_requests(served_dir: Path, pictures: np.ndarray) -> None:
    metrics, settings = Metrics(CollectorRegistry()), PredictorSettings(model_name=NAME, max_pending_bytes=100_000)
    model = ServingModel(settings, Dispatcher(settings, 1), metrics)
    model.loaded = load(NAME, served_dir, 1)
    metrics.serving(model.loaded)

    async def scenario() -> None:
        servicer = Servicer(model, metrics)
        for _ in range(3):
            assert (await servicer.ModelInfer(grpc_request(pictures).SerializeToString(), None)).model_name == NAME
            with pytest.raises(exceptions.Unavailable, match="too many bytes"):
                await servicer.ModelInfer(bytes(200_000), None)
            with pytest.raises(exceptions.InvalidArgument):
                await servicer.ModelInfer(b"\xff" * 50_000, None)
            assert model.pending_bytes == 0

    asyncio.run(scenario())
    model.dispatcher.close()


@contextmanager
def silent_calls(grpc_address: str, number: int) -> Iterator[list[grpc.Future]]:
    """Open calls whose message does not come."""
    ends = threading.Event()

    def nothing() -> Iterator[bytes]:
        ends.wait(120)
        yield b""

    with grpc.insecure_channel(grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        ask = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            yield [ask.future(nothing()) for _ in range(number)]
        finally:
            ends.set()


def test_grpc_calls_that_are_open_have_a_limit(grpc_address: str, stub: GRPCInferenceServiceStub) -> None:
    for _ in range(2):  # what was refused once must not count less later
        with ExitStack() as stack:  # one connection takes 64
            opened = [call for _ in range(8) for call in stack.enter_context(silent_calls(grpc_address, 60))]
            deadline = time.monotonic() + 60
            while not any(call.done() and call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED for call in opened):
                assert time.monotonic() < deadline, Counter(call.code() if call.done() else None for call in opened)
                time.sleep(0.05)
    assert stub.ServerLive(messages.ServerLiveRequest(), timeout=60).live


def test_grpc_calls_that_send_nothing_end_soon_where_others_wait_who_do_not_wait_for_all_of_them(
    grpc_address: str, stub: GRPCInferenceServiceStub, pictures: np.ndarray
) -> None:
    with ExitStack() as stack:
        opened = [call for _ in range(4) for call in stack.enter_context(silent_calls(grpc_address, 50))]
        while not (ended := [call for call in opened if call.done()]):  # all of them would take 50 seconds
            assert stub.ModelInfer(grpc_request(pictures), timeout=30).model_name == NAME
        assert ended[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "did not arrive" in ended[0].details()


def test_grpc_messages_arrive_a_few_at_a_time() -> None:
    """The library takes a message in as a whole before anybody knows its size."""
    receiver = Receiver(PredictorSettings(max_pending_bytes=30_000, max_body_bytes=10_000))
    now = most = 0

    async def message() -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return b"x"

    async def scenario() -> list[bytes]:
        return await asyncio.gather(*(receiver.read(message) for _ in range(12)))

    assert asyncio.run(scenario()) == [b"x"] * 12
    assert most == 3


def test_grpc_messages_that_were_refused_are_not_kept(grpc_server: tuple[PredictorProcess, str], stub: GRPCInferenceServiceStub) -> None:
    """An exception may keep what its frames held, until garbage is collected: a gigabyte of messages by then."""
    request = messages.ModelInferRequest(model_name=NAME)
    request.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(bytes(6_000_000))
    before = grpc_server[0].memory()
    for _ in range(60):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert grpc_server[0].memory() - before < 120_000_000


def test_grpc_takes_no_large_messages_but_inference_requests(grpc_address: str) -> None:
    with grpc.insecure_channel(grpc_address) as channel:
        for method in ("ServerLive", "ModelReady", "RepositoryModelLoad"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(field(15, bytes(70_000)) * 2)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_loads_and_unloads_nothing(stub: GRPCInferenceServiceStub, pictures: np.ndarray) -> None:
    for call, request in (
        (stub.RepositoryModelUnload, messages.RepositoryModelUnloadRequest(model_name=NAME)),
        (stub.RepositoryModelLoad, messages.RepositoryModelLoadRequest(model_name=NAME)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert stub.ServerReady(messages.ServerReadyRequest()).ready
    assert stub.ModelMetadata(messages.ModelMetadataRequest(name=NAME)).inputs[0].name == "image"


def test_grpc_takes_wishes_as_parameters(stub: GRPCInferenceServiceStub, pictures: np.ndarray) -> None:
    request = grpc_request(pictures[:1])
    request.parameters["threshold"].string_param = "1.0"
    request.parameters["return_probabilities"].bool_param = True
    answer = stub.ModelInfer(request)
    assert [output.name for output in answer.outputs] == ["label", "confidence", "needs_review", "probabilities"]
    assert answer.raw_output_contents[2] == b"\1"
