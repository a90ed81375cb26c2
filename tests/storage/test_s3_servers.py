"""Real servers: the one that ignores conditions is refused, errors are told, and long lists come in pages."""

import datetime
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient

from components.classifier.errors import AccessDenied, StoreError, StoreUnsuitable
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.review import ReviewQueue
from components.storage import open_store
from tests.registry import bundles
from tests.review import queue_of
from tests.storage.fixtures import new_address, use
from tests.storage.rgw import GUEST, KMS_KEY
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
    lambda registry, _: list(registry.newest()),
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


@pytest.mark.xdist_group("rgw")
def test_the_documented_policy_lets_a_predictor_queue_pictures_and_nothing_else(
    rgw_server: Server, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "review.md").read_text()
    policy = (
        page.partition("```json\n")[2].partition("```")[0].replace(":::models", f":::{(bucket := rgw_server.make_bucket('review-rights'))}")
    )
    policy = policy.replace("111122223333", "").replace('user/penstock"', 'user/tests"')
    rgw_server.client().put_bucket_policy(Bucket=bucket, Policy=policy)
    use(rgw_server, monkeypatch)
    owner = open_store(f"s3://{bucket}/penstock")
    owner.replace("models/digits/v/manifest.json", b"{}")
    owner.replace("reviews/others/entries/v/x.audit.json", b"{}")
    assert rgw_server.guest is not None
    use(rgw_server.guest, monkeypatch)
    store = open_store(f"s3://{bucket}/penstock")
    assert [ReviewQueue(store, "digits").put(queue_of.entry(1)) for _ in range(2)] == [True, False]
    assert [it.id for it in ReviewQueue(owner, "digits").entries()] != []
    refused: list[Callable[[], object]] = [
        lambda: ReviewQueue(store, "others").put(queue_of.entry(1)),
        lambda: store.read("models/digits/v/manifest.json"),
        lambda: store.replace("models/digits/v/manifest.json", b"other"),
        lambda: store.create("deployments/digits/000001.json", b"{}"),
        lambda: store.read("reviews/others/entries/v/x.audit.json"),
        lambda: list(store.names("models/")),
        lambda: store.delete(next(owner.list("reviews/digits/")).key),
    ]
    for act in refused:
        with pytest.raises(AccessDenied):
            act()


@pytest.mark.xdist_group("rgw")
@pytest.mark.parametrize("calculation", ["when_required", "when_supported"])
def test_uploads_fit_a_bucket_with_object_lock_and_a_server_that_then_overwrites_is_named(
    calculation: str, rgw_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None
) -> None:
    """This release of Ceph takes If-None-Match only in buckets without versioning, and Object Lock needs versioning."""
    bucket, client = f"locked-{calculation.replace('_', '-')}", rgw_server.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=retention)
    use(rgw_server, monkeypatch)
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", calculation)
    store, large = open_store(f"s3://{bucket}/x"), tmp_path / "large"
    large.write_bytes(os.urandom(17 << 20))
    store.replace("small", b"1")
    store.upload(large, "large")
    store.download("large", tmp_path / "back")
    assert (store.read("small"), (tmp_path / "back").read_bytes()) == (b"1", large.read_bytes())
    for key in ("small", "large"):
        assert client.get_object_retention(Bucket=bucket, Key=f"x/{key}")["Retention"]["Mode"] == "GOVERNANCE"
    with pytest.raises(StoreUnsuitable, match=r"ignores the condition.*only in buckets without versioning and Object Lock"):
        Registry(store, "digits").ledger.append(Record(action="held", version="1", strategy="force"))


@pytest.mark.xdist_group("rgw")
def test_objects_are_encrypted_by_the_key_that_was_named_and_a_wrong_key_is_told(
    rgw_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None
) -> None:
    use(rgw_server, monkeypatch)
    monkeypatch.setenv("PENSTOCK_S3_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("PENSTOCK_S3_KMS_KEY", KMS_KEY)
    store, large = open_store(address := new_address()), tmp_path / "large"
    large.write_bytes(os.urandom(17 << 20))
    store.create("created", b"1")
    store.upload(large, "large")
    assert store.read("created") == b"1"
    store.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    for key in ("created", "large"):
        found = rgw_server.client().head_object(Bucket=BUCKET, Key=f"{address.removeprefix(f's3://{BUCKET}/')}/{key}")
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
    monkeypatch.setenv("PENSTOCK_S3_KMS_KEY", "no-such-key")
    with pytest.raises(StoreError, match="PENSTOCK_S3_KMS_KEY"):
        open_store(address).replace("other", b"1")


@pytest.mark.xdist_group("rgw")
def test_who_pays_for_requests_is_asked_by_the_server_itself(
    rgw_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: None
) -> None:
    bucket, client = rgw_server.make_bucket("payers"), rgw_server.client()
    client.put_object(Bucket=bucket, Key="a", Body=b"1")
    client.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
    guest = {"Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/{GUEST}"]}, "Action": "s3:*"}
    places = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [{**guest, "Resource": places}]}))
    assert rgw_server.guest is not None
    use(rgw_server.guest, monkeypatch)
    with pytest.raises(AccessDenied, match="PENSTOCK_S3_REQUEST_PAYER=requester"):
        open_store(f"s3://{bucket}").read("a")
    monkeypatch.setenv("PENSTOCK_S3_REQUEST_PAYER", "requester")
    store = open_store(f"s3://{bucket}")
    assert store.read("a") == b"1"
    store.create("b", b"2")
    (tmp_path / "large").write_bytes(bytes(17 << 20))
    store.upload(tmp_path / "large", "large")
    assert [it.key for it in store.list()] == ["a", "b", "large"]


@pytest.fixture
def thousands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Registry]:
    """A registry of 2,500 versions, as far as their names go."""
    with ministack(tmp_path / "server") as server:
        client = server.client()
        client.create_bucket(Bucket="long")
        keys = [f"models/digits/20260101-{number:06d}-0123456789ab/manifest.json" for number in range(2500)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: client.put_object(Bucket="long", Key=key, Body=b"{}"), keys))
        use(server, monkeypatch)
        yield Registry(open_store("s3://long"), "digits")


def test_thousands_of_versions_are_listed_with_a_request_for_each_thousand(thousands: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    call = BaseClient._make_api_call

    def counted(self: BaseClient, operation: str, arguments: dict[str, Any]) -> Any:
        asked.append(operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", counted)
    names = list(thousands.store.names("models/digits/"))
    assert asked == ["ListObjectsV2"] * 3
    assert len(names) == 2500
    assert names == sorted(names)
    assert next(thousands.newest()) == names[-1]
