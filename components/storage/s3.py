"""A store in an S3 bucket, of any vendor whose server can create an object without overwriting one."""

import base64
import hashlib
import mimetypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore import exceptions as aws
from botocore.config import Config
from s3transfer.exceptions import CancelledError
from s3transfer.subscribers import BaseSubscriber

from components.classifier.errors import ObjectNotFound, StoreError, StoreUnavailable, StoreUnsuitable, UsageError
from components.storage.files import explain_os_errors
from components.storage.nearby import is_nearby
from components.storage.s3_create import OURS, WRITER, CreateOnly, Refusal
from components.storage.s3_messages import DeadlinePassed, explain, no_bucket, status_of
from components.storage.s3_settings import ca_bundle, endpoint, load_settings, split_address
from components.storage.store import CHUNK, Entry, Progress, Store, check_key, without_markers

_ATTEMPTS = 5  # the waits between them grow to 8 s, by which a deadline may be missed
_RESUMES = 20
_SLOWEST = 256 * 1024  # bytes per second that a transfer of any size may be expected to make
_TRANSFER = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=8 << 20, max_concurrency=8)
_COPY = TransferConfig(multipart_threshold=4 << 30, multipart_chunksize=1 << 30, max_concurrency=8)
"""A server copies at most 5 GiB at once."""


class S3Store(Store):
    """Objects below `s3://bucket/prefix`; credentials, region, endpoint and CA bundle come from the AWS environment."""

    def __init__(self, address: str) -> None:
        self._bucket, self._prefix = split_address(address)
        self.url = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._settings = load_settings()
        self._limit = threading.local()
        self._placed = False
        self._client = self._connect()
        self._where = str(self._client.meta.endpoint_url)
        self._creator = CreateOnly(self._put_new, self._writer, self.delete, f"the server at {self._where}", self.url)
        self._options: dict[str, str] = {}
        if self._settings.encryption:
            self._options["ServerSideEncryption"] = self._settings.encryption
        if self._settings.kms_key:
            self._options["SSEKMSKeyId"] = self._settings.kms_key

    def chunks(self, key: str) -> Iterator[bytes]:
        return self._chunks(key, 0, None)

    def span(self, key: str, start: int, size: int) -> bytes:
        return b"".join(self._chunks(key, start, start + size))[:size] if size else b""

    def _chunks(self, key: str, start: int, stop: int | None) -> Iterator[bytes]:
        """Yield an object's bytes from `start` to before `stop`, or to its end; a server that ignores ranges may give more."""
        offset, tag, until = start, None, None
        for _ in range(_RESUMES):
            response = self._get(key, offset, stop)
            tag = tag or response["ETag"]
            if response["ETag"] != tag:
                raise StoreUnavailable(f"{key!r} in {self.url} changed while it was read; try again")
            body, size = response["Body"], response["ContentLength"]
            until = until or self._until(size)
            skip = 0 if response.get("ContentRange") else offset  # a server may ignore the range
            try:
                for chunk in body.iter_chunks(CHUNK):
                    fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                    offset += len(fresh)
                    if fresh:
                        yield fresh
                    if time.monotonic() > until:
                        raise StoreUnavailable(f"reading {key!r} from {self.url} took too long; look at the network or the server")
            except (aws.HTTPClientError, aws.IncompleteReadError) as error:
                if time.monotonic() > until:
                    raise self._explained(error, f"read {key!r} from {self.url}") from error
            else:
                return
            finally:
                body.close()
        raise StoreUnavailable(f"reading {key!r} from {self.url} broke off {_RESUMES} times; look at the network or the server")

    def create(self, key: str, data: bytes) -> None:
        with self._within():
            self.require_place()
            self._creator.create(check_key(key), data)

    def require_place(self) -> None:
        """Ask for the bucket itself, once: some servers (SeaweedFS) make a missing one at the first write."""
        if self._placed:
            return
        try:
            self._call(self._client.head_bucket, f"look for {self.url}")
        except ObjectNotFound as error:
            if not self._is_listed():  # gateways are met that do not know HEAD of a bucket
                raise StoreError(no_bucket(f"cannot use {self.url} ({self._where})", self._bucket)) from error
        except StoreUnavailable:
            raise
        except StoreError:  # HEAD is refused without words: what is asked next tells why
            pass
        self._placed = True

    def _is_listed(self) -> bool:
        try:
            next(self._pages("", MaxKeys=1))
        except StoreUnavailable:
            raise
        except StoreError:
            return False
        return True

    def require_create_only(self) -> None:
        with self._within():
            self.require_place()
            self._creator.require()

    def replace(self, key: str, data: bytes) -> None:
        self.require_place()
        self._call(self._client.put_object, f"write {key!r} to {self.url}", Key=self._key(key), Body=data, **self._options)

    def exists(self, key: str) -> bool:
        # A list tells a missing object from a missing bucket, which HEAD does not.
        pages = self._pages(check_key(key), f"look for {key!r} in {self.url}", MaxKeys=1)  # the key itself comes first
        first = next((item["Key"] for page in pages for item in page.get("Contents", [])), "")
        return bool(first == self._key(key))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        items = (item for page in self._pages(prefix) for item in page.get("Contents", []))
        entries = (Entry(item["Key"][len(self._prefix) :], item["Size"], item.get("ETag", "")) for item in items)
        yield from (entry for entry in without_markers(entries) if not entry.key.startswith(OURS))

    def names(self, prefix: str = "") -> Iterator[str]:
        start, last = len(self._prefix) + len(prefix), ""
        for page in self._pages(prefix, Delimiter="/"):
            keys = [item["Key"] for item in page.get("Contents", [])] + [item["Prefix"] for item in page.get("CommonPrefixes", [])]
            for name in sorted({key[start:].rstrip("/") for key in keys}):
                if name and name != last and not f"{prefix}{name}/".startswith(OURS):
                    yield name
                    last = name

    def delete(self, key: str) -> None:
        self._call(self._client.delete_object, f"delete {key!r} from {self.url}", Key=self._key(key))

    def remove_bucket(self) -> None:
        """Remove the bucket itself, which must be empty; raises StoreError."""
        self._call(self._client.delete_bucket, f"remove the bucket of {self.url}")

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        doing = f"write {key!r} to {self.url}"
        with explain_os_errors(f"cannot read {source}"):
            size = source.stat().st_size
        self.require_place()
        watch = _Watch(progress)
        with create_transfer_manager(self._client, _TRANSFER) as manager:
            future = manager.upload(
                str(source), self._bucket, self._key(key), extra_args=self._options | _content_type(key), subscribers=[watch]
            )
            if not watch.done.wait(self._until(size) - time.monotonic()):
                future.cancel()
            try:
                future.result()
            except CancelledError as error:
                raise StoreUnavailable(f"cannot {doing} ({self._where}): it took too long; look at the network or the server") from error
            except OSError as error:
                raise StoreError(f"cannot {doing}: {source} cannot be read ({error.strerror})") from error
            except (aws.ClientError, aws.BotoCoreError) as error:
                if not self._was_completed(error, key, size):
                    raise self._explained(error, doing) from error

    def copy(self, source: str, key: str) -> None:
        doing = f"copy {source!r} to {key!r} in {self.url}"
        size = next((entry.size for entry in self.list(source) if entry.key == source), None)
        if size is None:
            raise ObjectNotFound(f"cannot {doing}: there is no object {source!r}")
        place = {"Bucket": self._bucket, "Key": self._key(source)}
        if size < _COPY.multipart_threshold:
            self._call(self._client.copy_object, doing, Key=self._key(key), CopySource=place, **self._options)
            return
        try:
            self._client.copy(place, self._bucket, self._key(key), ExtraArgs=self._options, Config=_COPY)
        except (aws.ClientError, aws.BotoCoreError) as error:
            raise self._explained(error, doing) from error

    def _put_new(self, key: str, data: bytes, writer: str) -> Refusal | None:
        """Send one conditional write; returns what came in place of success."""
        metadata, wanted = {WRITER: writer}, self._key(key)
        try:
            self._client.put_object(Bucket=self._bucket, Key=wanted, Body=data, IfNoneMatch="*", Metadata=metadata, **self._options)
        except (aws.ClientError, aws.BotoCoreError, DeadlinePassed) as error:
            return Refusal(status_of(error), self._explained(error, f"create {key!r} in {self.url}"))
        return None

    def _writer(self, key: str) -> str:
        response = self._get(key, 0)
        response["Body"].close()
        return str(response.get("Metadata", {}).get(WRITER, ""))

    def _get(self, key: str, offset: int, stop: int | None = None) -> dict[str, Any]:
        ranged = {"Range": f"bytes={offset}-{'' if stop is None else stop - 1}"} if offset or stop is not None else {}
        response = self._call(self._client.get_object, f"read {key!r} from {self.url}", Key=self._key(key), **ranged)
        return {**response, "ETag": str(response.get("ETag", "")).strip('"')}  # some servers leave the quotes out

    def _pages(self, prefix: str, doing: str = "", **options: str | int) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        doing = doing or f"list {self.url}"
        while True:
            page = self._call(self._client.list_objects_v2, doing, Prefix=f"{self._prefix}{prefix}", **options, **token)
            if "IsTruncated" not in page and "KeyCount" not in page and "Name" not in page:
                raise StoreUnsuitable(
                    f"what answers at {self._where} does not speak S3; correct AWS_ENDPOINT_URL (a web console has another port)"
                )
            yield page
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page.get("NextContinuationToken", "")}
            if following["ContinuationToken"] == token.get("ContinuationToken", ""):
                raise StoreUnsuitable(
                    f"cannot {doing}: the server at {self._where} says that its list goes on, but not where (IsTruncated without a new "
                    "NextContinuationToken), so that the rest would be lost; use another server, or a release of it that has ListObjectsV2"
                )
            token = following

    def _call(self, operation: Callable[..., Any], doing: str, **arguments: Any) -> dict[str, Any]:
        with self._within():
            try:
                answer: dict[str, Any] = operation(Bucket=self._bucket, **arguments)
            except (aws.ClientError, aws.BotoCoreError, DeadlinePassed) as error:
                raise self._explained(error, doing) from error
            return answer

    @contextmanager
    def _within(self) -> Iterator[None]:
        """Let no request of this thread start after the deadline; the outermost call sets it."""
        outermost = getattr(self._limit, "until", None) is None
        if outermost:
            self._limit.until, self._limit.last = time.monotonic() + self._settings.deadline_s, None
        try:
            yield
        finally:
            if outermost:
                self._limit.until = None

    def _before_send(self, **_: Any) -> None:
        until = getattr(self._limit, "until", None)
        if until is not None and time.monotonic() > until:
            raise DeadlinePassed(self._limit.last)

    def _pay(self, params: dict[str, Any], **_: Any) -> None:
        if self._settings.request_payer:
            params["headers"]["x-amz-request-payer"] = self._settings.request_payer

    def _received(self, parsed_response: dict[str, Any] | None, exception: Exception | None, **_: Any) -> None:
        self._limit.last = exception or (aws.ClientError(parsed_response, "") if parsed_response else None)  # type: ignore[arg-type]

    def _until(self, size: int) -> float:
        return time.monotonic() + self._settings.deadline_s + size / _SLOWEST

    def _was_completed(self, error: Exception, key: str, size: int) -> bool:
        """Say whether a transfer ended well although its last answer was lost: repeating it finds no upload of that number."""
        if not (isinstance(error, aws.ClientError) and error.response.get("Error", {}).get("Code") == "NoSuchUpload"):
            return False
        return any(entry == Entry(key, size) for entry in self.list(key))

    def _connect(self) -> Any:
        address, bundle = endpoint(), ca_bundle()
        try:
            session = boto3.Session()
            client = self._make(session, address, bundle, path=address is not None, near=address is not None and is_nearby(address))
            host = urlsplit(str(client.meta.endpoint_url)).hostname or ""
            if address is None and not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):  # an endpoint from ~/.aws/config
                client = self._make(session, None, bundle, path=True, near=is_nearby(str(client.meta.endpoint_url)))
        except (aws.BotoCoreError, ValueError) as error:
            raise UsageError(
                f"cannot reach {self.url}: {error}; correct the AWS settings (AWS_PROFILE, AWS_REGION, ~/.aws/config)"
            ) from error
        client.meta.events.register("before-send.s3", self._before_send)
        client.meta.events.register("response-received.s3", self._received)
        client.meta.events.register("before-call.s3", self._pay)
        for operation in ("PutObject", "UploadPart"):
            client.meta.events.register(f"before-call.s3.{operation}", _add_content_md5)
        return client

    def _make(self, session: boto3.Session, address: str | None, bundle: str | None, *, path: bool, near: bool) -> Any:
        # Trailing checksums in aws-chunked form are refused by many servers; our own digests are checked on reading.
        given = session._session.get_scoped_config()
        checksums: dict[str, Any] = {
            name: "when_required"
            for name in ("request_checksum_calculation", "response_checksum_validation")
            if not os.environ.get(f"AWS_{name.upper()}") and name not in given
        }
        style = self._settings.addressing if self._settings.addressing != "auto" else "path" if path else "auto"
        return session.client(
            "s3",
            endpoint_url=address,
            region_name=os.environ.get("AWS_REGION") or session.region_name or "us-east-1",  # botocore reads AWS_DEFAULT_REGION only
            verify=bundle,
            config=Config(
                s3={"addressing_style": style},
                connect_timeout=min(10.0, self._settings.timeout_s),
                read_timeout=self._settings.timeout_s,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                proxies={} if near else None,  # None: those of the environment
                **checksums,
            ),
        )

    def _explained(self, error: Exception, doing: str) -> StoreError:
        return explain(error, doing, self._bucket, self._where)

    def _key(self, key: str) -> str:
        return f"{self._prefix}{check_key(key)}"


class _Watch(BaseSubscriber):
    """Passes a transfer's progress on, and says when it is done."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.done = threading.Event()

    def on_progress(self, future: Any, bytes_transferred: int, **kwargs: Any) -> None:
        """Called by s3transfer after each piece; negative when a piece is sent again."""
        if self._progress:
            self._progress(bytes_transferred)

    def on_done(self, future: Any, **kwargs: Any) -> None:
        """Called by s3transfer at the end, good or bad."""
        self.done.set()


def _add_content_md5(params: dict[str, Any], **_: Any) -> None:
    """Send the MD5 of a body, without which a bucket with Object Lock takes none, unless botocore sends a checksum of its own."""
    if params.get("context", {}).get("checksum", {}).get("request_algorithm"):
        return
    md5, body = hashlib.md5(usedforsecurity=False), params["body"]
    if isinstance(body, bytes | bytearray):
        md5.update(body)
    else:
        start = body.tell()
        while piece := body.read(CHUNK):
            md5.update(piece)
        body.seek(start)
    params["headers"]["Content-MD5"] = base64.b64encode(md5.digest()).decode()


def _content_type(key: str) -> dict[str, str]:
    """What browsers take an object for, by its name: a page that lies in a bucket is shown and not saved."""
    known, _ = mimetypes.guess_type(key)
    return {"ContentType": known} if known else {}
