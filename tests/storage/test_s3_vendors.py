"""What differs between S3 servers: checksums, conditions, folder objects, endpoints, certificates and messages."""

import datetime
import email.utils
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.classifier.errors import (
    AccessDenied,
    ObjectExists,
    ObjectNotFound,
    PenstockError,
    StoreError,
    StoreUnavailable,
    StoreUnsuitable,
    UsageError,
)
from components.storage import Entry, open_store
from components.storage.s3_settings import tidy_endpoint
from tests.storage.certificates import certificate
from tests.storage.servers import free_port
from tests.storage.vendor import Habits, Vendor, vendor


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    monkeypatch.setenv("PENSTOCK_S3_TIMEOUT_S", "2")
    monkeypatch.setenv("PENSTOCK_S3_DEADLINE_S", "2")


@pytest.fixture
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, keys: None) -> Iterator[Vendor]:
    with vendor(request.param) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def habits(*every: Habits) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("served", every, indirect=True, ids=lambda h: h.condition if isinstance(h, Habits) else None)


@habits(Habits(plain_uploads_only=True))
def test_servers_without_trailing_checksums_work_unasked(served: Vendor, tmp_path: Path) -> None:
    store = open_store("s3://b/x")
    store.create("small", b"1")
    store.replace("small", b"2")
    for name, size in (("empty", 0), ("one", 9_000_000), ("parts", 20_000_000)):
        source = tmp_path / name
        source.write_bytes(os.urandom(size))
        store.upload(source, name)
        store.download(name, tmp_path / "back")
        assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert any("uploadId" in request for request in served.requests)


@habits(*(Habits(condition=c) for c in ("412", "409 when busy", "409 when taken", "304")))
def test_of_16_writers_one_wins_however_the_server_says_so(served: Vendor) -> None:
    stores = [open_store("s3://b/x") for _ in range(4)]

    def create(number: int) -> bool:
        try:
            stores[number % 4].create("record", str(number).encode())
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number, won in enumerate(pool.map(create, range(16))) if won]
    assert [str(number).encode() for number in winners] == [stores[0].read("record")]


@habits(*(Habits(condition=c) for c in ("501", "400", "ignored")))
def test_a_server_without_conditions_is_refused_before_anything_is_written(served: Vendor) -> None:
    served.objects["x/record"] = (b"old", {})
    store = open_store("s3://b/x")
    with pytest.raises(StoreUnsuitable, match=rf"{served.endpoint}.*If-None-Match.*Ceph RGW"):
        store.create("record", b"new")
    assert store.read("record") == b"old"
    assert [entry.key for entry in store.list()] == ["record"]


@habits(Habits())
def test_the_probe_leaves_one_object_and_is_one_request_afterwards(served: Vendor) -> None:
    open_store("s3://b/x").create("one", b"")
    served.requests.clear()
    open_store("s3://b/x").create("two", b"")
    assert [request.split("?")[0] for request in served.requests] == [
        "HEAD /b",
        "PUT /b/x/.penstock/create-only",
        "GET /b/x/.penstock/create-only",
        "PUT /b/x/two",
    ]
    store = open_store("s3://b/x")
    assert (list(store.names()), [entry.key for entry in store.list()]) == (["one", "two"], ["one", "two"])


@habits(Habits())
def test_objects_that_only_stand_for_a_folder_are_passed_over(served: Vendor, tmp_path: Path) -> None:
    markers = ["x", "x/", "x/data/", "x/data", "x/data/cat/", "x/data/cat", "x/models/", "x/models/digits", "x/models/digits/", "x/empty/"]
    real = ["x/data/cat/1.png", "x/data/cat-2/1.png", "x/data/cat 3.png", "x/models/digits/v/f"]
    for key in markers:
        served.objects[key] = (b"", {})
    for key in real:
        served.objects[key] = (b"content", {})
    served.objects["x/data/dog.png"] = (b"", {})  # empty, but nothing lies below it: a real one
    store = open_store("s3://b/x")
    assert {entry.key for entry in store.list()} == {key[2:] for key in real} | {"data/dog.png"}
    assert list(store.names()) == ["data", "empty", "models"]
    assert list(store.names("data/")) == ["cat", "cat 3.png", "cat-2", "dog.png"]
    assert list(store.names("models/digits/")) == ["v"]
    for entry in store.list():
        store.download(entry.key, tmp_path / entry.key)
    assert (tmp_path / "data" / "cat" / "1.png").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("value", "tidy"),
    [
        ("http://h:9000/", "http://h:9000"),
        (" http://h:9000\n", "http://h:9000"),
        ("HTTPS://s3.example.com.", "https://s3.example.com"),
        ("https://s3.example.com.:9000//", "https://s3.example.com:9000"),
        ("https://h/base", "https://h/base"),
        ("https://h/base/", "https://h/base"),
        ("http://minio_1:9000", "http://minio_1:9000"),
        ("http://10.0.0.1", "http://10.0.0.1"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_endpoints_are_tidied(value: str, tidy: str) -> None:
    assert tidy_endpoint(value, "AWS_ENDPOINT_URL") == tidy


@pytest.mark.parametrize(
    "value",
    [
        "", "  ", "minio:9000", "minio", "//minio:9000", "$(endpoint)", "http://$(endpoint)", "${S3}", "http://{{host}}", "<endpoint>", "s3://b",
        "ftp://h", "http://", "http://:9000", "http:///b", "http://h:port", "http://h:99999", "http://h:9000?x=1", "http://h#a", "'http://h'",
        '"http://h"', "http://user:secret@h", "http://a b", "http://h/../x", "http:/h", "http://h..example.com", "http://-h",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_endpoints_that_cannot_be_are_refused_before_any_work(value: str, name: str, monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        open_store("s3://bucket/prefix")
    assert name in str(caught.value)
    assert repr(value) in str(caught.value) or "secret" in value
    assert "https://HOST:PORT" in str(caught.value)
    assert "secret" not in str(caught.value)


@habits(Habits())
def test_custom_endpoints_get_the_bucket_in_the_path_and_need_no_region(served: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f" {served.endpoint.replace('127.0.0.1', 'localhost')}/ ")
    open_store("s3://my.dotted-bucket/x").replace("a", b"1")
    assert served.requests == ["HEAD /my.dotted-bucket", "PUT /my.dotted-bucket/x/a"]


@habits(Habits())
def test_an_endpoint_from_the_aws_configuration_gets_it_too(served: Vendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {served.endpoint.replace('127.0.0.1', 'localhost')}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    open_store("s3://bucket").replace("a", b"1")
    assert served.requests == ["HEAD /bucket", "PUT /bucket/a"]


@pytest.mark.parametrize(
    ("variables", "region"), [({"AWS_REGION": "eu-west-1"}, "eu-west-1"), ({"AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1")]
)
@habits(Habits())
def test_the_region_is_that_of_either_variable(
    served: Vendor, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], region: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    open_store("s3://bucket/x").replace("a", b"1")
    assert served.regions == {region}


@habits(Habits(base="/base"))
def test_an_endpoint_may_have_a_path(served: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{served.endpoint}/base/")
    store = open_store("s3://bucket/x")
    store.create("a", b"1")
    assert store.read("a") == b"1"
    assert list(store.names()) == ["a"]
    assert served.requests[-1].startswith("GET /base/bucket?")


@pytest.mark.parametrize(
    "value", ["s3://", "s3:///x", "s3://$(bucket)/x", "s3://bucket/../x", "s3:/bucket", "gs://bucket", "", "  ", "memory://"]
)
def test_addresses_that_cannot_be_are_refused(value: str, keys: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="s3://bucket"):
        open_store(value)
    assert list(tmp_path.iterdir()) == []


def test_a_private_authority_is_named_and_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: None, impatient: None) -> None:
    files = certificate(tmp_path)
    with vendor(Habits(), files) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)
        with pytest.raises(StoreUnavailable, match=r"certificate is not trusted.*AWS_CA_BUNDLE"):
            open_store("s3://bucket").read("a")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(files[0]))
        with monkeypatch.context() as patient:  # on a busy machine what works may take seconds
            patient.setenv("PENSTOCK_S3_TIMEOUT_S", "60")
            patient.setenv("PENSTOCK_S3_DEADLINE_S", "60")
            store = open_store("s3://bucket")
            store.create("a", b"1")
            assert store.read("a") == b"1"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
        with pytest.raises(UsageError, match=r"AWS_CA_BUNDLE '.*nothing\.pem'"):
            open_store("s3://bucket")
        monkeypatch.delenv("AWS_CA_BUNDLE")
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint.replace("https", "http"))
        with pytest.raises(PenstockError):
            open_store("s3://bucket").read("a")


@habits(Habits())
def test_tls_towards_a_server_without_it_says_so(served: Vendor, monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint.replace("http", "https"))
    with pytest.raises(StoreUnavailable, match="begin AWS_ENDPOINT_URL with http://"):
        open_store("s3://bucket").read("a")


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (Habits(status=404, code="NoSuchBucket"), StoreError, "bucket 'lost' does not exist"),
        (Habits(status=403, code="SignatureDoesNotMatch"), AccessDenied, "check AWS_SECRET_ACCESS_KEY"),
        (Habits(status=403, code="InvalidAccessKeyId"), AccessDenied, "check AWS_ACCESS_KEY_ID"),
        (Habits(status=403, code="AccessDenied"), AccessDenied, "s3:PutObject"),
        (Habits(status=400, code="ExpiredToken"), AccessDenied, "AWS_SESSION_TOKEN"),
        (Habits(status=403, code="RequestTimeTooSkewed"), AccessDenied, "clock differs"),
        (Habits(status=301, code="PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-1"}), StoreError, "AWS_REGION to eu-west-1"),
        (Habits(status=507, code="XMinioStorageFull"), StoreError, "is full"),
        (Habits(status=503, code="SlowDown"), StoreUnavailable, "keeps failing"),
        (Habits(status=500, code="InternalError"), StoreUnavailable, "keeps failing"),
        (Habits(status=400, code="KMS.DisabledException"), AccessDenied, "PENSTOCK_S3_KMS_KEY"),
        (Habits(status=400, code="Strange"), StoreError, "Strange"),
        (Habits(page=b"<html><body><p>Welcome<br></body></html>"), StoreError, "AWS_ENDPOINT_URL"),
        (Habits(page=b"<html><body>Welcome</body></html>"), StoreUnsuitable, "does not speak S3"),
    ],
)
def test_what_a_server_says_is_told_with_a_remedy(
    answer: Habits, kind: type[StoreError], says: str, monkeypatch: pytest.MonkeyPatch, keys: None, impatient: None
) -> None:
    with vendor(answer) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)
        with pytest.raises(kind, match=says) as caught:
            list(open_store("s3://lost/x").list())
        assert "\n" not in str(caught.value)
        assert served.endpoint in str(caught.value)


@pytest.mark.parametrize("write", ["create", "replace", "upload", "require_create_only"])
def test_a_missing_bucket_is_never_made_by_a_write(write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with vendor(Habits(makes_buckets=True)) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)
        store = open_store("s3://nobucket/x")
        arguments = {"upload": (tmp_path / "file", "a"), "require_create_only": ()}.get(write, ("a", b"x"))
        with pytest.raises(StoreError, match="bucket 'nobucket' does not exist; create it"):
            getattr(store, write)(*arguments)
        assert served.objects == {}
        served.objects["made/by/hand"] = (b"", {})
        getattr(store, write)(*arguments)


@habits(Habits(heads_buckets=False, locked=True))
def test_a_bucket_that_can_be_listed_is_there_whatever_head_says(served: Vendor, tmp_path: Path) -> None:
    store = open_store("s3://b/x")
    store.create("one", b"1")
    (tmp_path / "file").write_bytes(b"2")
    store.upload(tmp_path / "file", "two")
    assert [entry.key for entry in store.list()] == ["one", "two"]


@pytest.mark.parametrize("minutes", [31, -31])
def test_a_wrong_clock_is_told_in_minutes(minutes: int, monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    date = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes), usegmt=True)
    with vendor(Habits(status=403, code="AccessDenied", headers={"Date": date})) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)
        with pytest.raises(AccessDenied, match=f"31 min {'ahead of' if minutes > 0 else 'behind'} the server's"):
            open_store("s3://bucket").read("a")


def test_without_credentials_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: None) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for act in (lambda s: s.read("a"), lambda s: s.create("a", b""), lambda s: list(s.names()), lambda s: s.upload(Path(__file__), "a")):
        with pytest.raises(AccessDenied, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            act(open_store("s3://bucket"))


def test_nobody_listening_is_told_within_the_deadline(monkeypatch: pytest.MonkeyPatch, keys: None, impatient: None) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")

    def seconds() -> float:
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no connection"):
            open_store("s3://bucket").create("a", b"")
        return time.monotonic() - start

    assert any(seconds() < 8 for _ in range(3)), "a machine that stands still for a while may need another try"


def test_a_wrong_profile_is_named(monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError, match=r"nobody.*AWS_PROFILE"):
        open_store("s3://bucket")


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    monkeypatch.setenv("PENSTOCK_S3_ADDRESSING", "host")
    with pytest.raises(UsageError, match="PENSTOCK_S3_ADDRESSING 'host'"):
        open_store("s3://bucket")


def test_an_empty_object_is_an_object(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with vendor(Habits()) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)
        store = open_store("s3://bucket")
        store.create("a", b"")
        assert list(store.list()) == [Entry("a", 0)]


def keys_of(served: Vendor, number: int) -> list[str]:
    keys = [f"{n:06d}.json" for n in range(number)]
    served.objects.update({f"x/{key}": (b"{}", {}) for key in keys})
    return keys


@habits(Habits(lists="without tokens"), Habits(lists="one token"))
def test_a_server_that_hides_the_rest_of_a_list_is_refused_by_name(served: Vendor) -> None:
    keys_of(served, 1203)
    store = open_store("s3://b/x")
    for read in (store.list, store.names):
        with pytest.raises(StoreUnsuitable, match=f"the server at {served.endpoint} says that its list goes on, but not where"):
            list(read())


@habits(Habits(lists="without tokens"))
def test_short_lists_of_such_a_server_are_whole(served: Vendor) -> None:
    keys = keys_of(served, 1000)
    assert list(open_store("s3://b/x").names()) == keys


@habits(Habits(lists="empty pages"))
def test_pages_that_are_empty_but_go_on_hide_nothing(served: Vendor) -> None:
    store = open_store("s3://b/x")
    keys = keys_of(served, 1203)
    assert [entry.key for entry in store.list()] == list(store.names()) == keys
    assert store.exists(keys[0])
    assert not store.exists("000000")
    assert not store.exists("1")


@habits(Habits(locked=True), Habits(locked=True, plain_uploads_only=True))
@pytest.mark.parametrize("calculation", [None, "when_required", "when_supported"])
def test_buckets_with_object_lock_work_and_the_aws_setting_for_checksums_is_obeyed(
    served: Vendor, calculation: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if calculation:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", calculation)
    store, large = open_store("s3://b/x"), tmp_path / "large"
    large.write_bytes(os.urandom(20 << 20))
    moved = list[int]()
    store.create("record", b"new")
    store.replace("review", b"replaced")
    store.upload(large, "model", moved.append)
    assert (store.read("record"), store.read("review"), store.read("model")) == (b"new", b"replaced", large.read_bytes())
    assert sum(moved) == 20 << 20, "hashing is not counted as progress"
    assert {"x-amz-checksum-crc32" in names for names in served.headers} == {calculation == "when_supported"}


@habits(Habits(requester_pays=True))
def test_a_requester_pays_bucket_needs_a_setting_that_the_refusal_names(
    served: Vendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(AccessDenied, match="PENSTOCK_S3_REQUEST_PAYER=requester"):
        open_store("s3://b/x").read("a")
    monkeypatch.setenv("PENSTOCK_S3_REQUEST_PAYER", "requester")
    store = open_store("s3://b/x")
    (tmp_path / "file").write_bytes(b"file")
    store.create("a", b"1")
    store.upload(tmp_path / "file", "b")
    assert [entry.key for entry in store.list()] == ["a", "b"]
    assert store.read("b") == b"file"


@habits(Habits(archived=True))
def test_an_archived_object_is_named_as_such(served: Vendor) -> None:
    store = open_store("s3://b/x")
    store.replace("model", b"1")
    with pytest.raises(StoreError, match=r"the object is archived \(InvalidObjectState.*restore-object") as raised:
        store.read("model")
    assert "AWS_ACCESS_KEY_ID" not in str(raised.value)


@habits(Habits(said=""))
def test_a_refusal_without_a_message_is_told_all_the_same(served: Vendor) -> None:
    store = open_store("s3://b/x")
    store.create("record", b"1")
    with pytest.raises(ObjectExists, match="object 'record' is in"):
        store.create("record", b"2")
    with pytest.raises(ObjectNotFound, match="there is no such object"):
        store.read("another")
