"""Real servers: the one that ignores conditions is refused, errors are told, and long lists come in pages."""

import datetime
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from components.classifier.errors import AccessDenied, StoreError, StoreUnsuitable
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.registry import bundles
from tests.storage.fixtures import new_address, use
from tests.storage.servers import BUCKET, Server, ministack

pytestmark = pytest.mark.integration


def test_a_server_that_ignores_conditions_is_refused_before_first_use(
    s3rver_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(s3rver_server, monkeypatch)
    client = s3rver_server.client()
    client.put_object(Bucket=BUCKET, Key="kept/deployments/digits/000001.json", Body=b"kept")
    registry = Registry(open_store(f"s3://{BUCKET}/kept"), "digits")
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    for act in (
        lambda: publish_directory(registry, bundle),
        lambda: registry.store.create("deployments/digits/000001.json", b"new"),
        lambda: Registry(open_store(f"s3://{BUCKET}/other"), "digits").ledger.append(Record(action="held", version="1", strategy="force")),
    ):
        with pytest.raises(StoreUnsuitable, match=rf"{s3rver_server.endpoint} ignores the condition If-None-Match"):
            act()
    assert client.get_object(Bucket=BUCKET, Key="kept/deployments/digits/000001.json")["Body"].read() == b"kept"
    assert [entry.key for entry in registry.store.list()] == ["deployments/digits/000001.json"]


@pytest.fixture(params=["ministack", pytest.param("rgw", marks=pytest.mark.xdist_group("rgw"))])
def strict(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Server:
    """A server that checks the signatures of the user it is reached by."""
    server = request.getfixturevalue(f"{request.param}_server")
    if request.param == "ministack":
        server = with_own_user(server)
    use(server, monkeypatch)
    return server


def with_own_user(server: Server) -> Server:
    """ministack lets its administrator in with any secret, so take a user of its own."""
    keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key, "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url=server.endpoint, **keys)
    name = f"user{time.monotonic_ns()}"
    iam.create_user(UserName=name)
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(everything))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return Server(server.endpoint, made["AccessKeyId"], made["SecretAccessKey"])


ACTS: list[Callable[[Registry, Path], object]] = [
    lambda registry, _: list(registry.versions()),
    lambda registry, _: registry.ledger.champion(),
    lambda registry, bundle: publish_directory(registry, bundle),
    lambda registry, bundle: registry.store.upload(bundle / "config.json", "a"),
]


def test_a_wrong_secret_and_a_missing_bucket_are_told(strict: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = bundles.quick(tmp_path / "bundle", b"1")
    registry, nowhere = Registry(open_store(new_address()), "digits"), Registry(open_store("s3://no-such-bucket/x"), "digits")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    wrong = Registry(open_store(new_address()), "digits")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY0000000000")
    nobody = Registry(open_store(new_address()), "digits")
    for act in ACTS:
        act(registry, bundle)
        with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist; create it"):
            act(nowhere, bundle)
        with pytest.raises(AccessDenied, match="check AWS_SECRET_ACCESS_KEY"):
            act(wrong, bundle)
        with pytest.raises(AccessDenied, match="check AWS_ACCESS_KEY_ID"):
            act(nobody, bundle)


@pytest.mark.xdist_group("rgw")
def test_a_clock_that_differs_by_31_minutes_is_told(rgw_server: Server, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    use(rgw_server, monkeypatch)
    import botocore.auth

    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: now(*a, **k) + datetime.timedelta(minutes=31))
    with pytest.raises(AccessDenied, match="clock differs from the server's; set the clock"):
        open_store(new_address()).create("a", b"")


def test_encryption_is_asked_for_with_every_object(
    ministack_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None
) -> None:
    use(ministack_server, monkeypatch)
    monkeypatch.setenv("PENSTOCK_S3_ENCRYPTION", "AES256")
    address = new_address()
    store = open_store(address)
    large = tmp_path / "large"
    large.write_bytes(bytes(17 << 20))
    store.create("created", b"")
    store.replace("replaced", b"")
    store.upload(Path(__file__), "small")
    store.upload(large, "large")
    prefix = address.removeprefix(f"s3://{BUCKET}/")
    for key in ("created", "replaced", "small", "large"):
        assert ministack_server.client().head_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["ServerSideEncryption"] == "AES256"


@pytest.fixture
def ten_thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Registry]:
    with ministack(tmp_path / "server") as server:
        client = server.client()
        client.create_bucket(Bucket="long")
        keys = [f"models/digits/20260101-{number:06d}-0123456789ab/manifest.json" for number in range(10_000)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: client.put_object(Bucket="long", Key=key, Body=b"{}"), keys))
        use(server, monkeypatch)
        yield Registry(open_store("s3://long"), "digits")


def test_ten_thousand_versions_are_listed_in_pages(ten_thousand: Registry) -> None:
    names = list(ten_thousand.store.names("models/digits/"))
    assert len(names) == 10_000
    assert names == sorted(names)
    assert list(ten_thousand.versions()) == names
    assert next(ten_thousand.newest()) == names[-1]
    best = min(_timed(lambda: list(ten_thousand.store.names("models/digits/"))) for _ in range(3))
    assert best < 2, f"{best:.2f} s"


def _timed(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start
