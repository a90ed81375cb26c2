"""A small S3 server in this process that has the habits of one vendor or another."""

import base64
import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Condition = Literal["412", "409 when busy", "409 when taken", "304", "501", "400", "ignored"]


@dataclass
class Habits:
    """How a vendor answers."""

    condition: Condition = "412"
    plain_uploads_only: bool = False
    """411 without Content-Length, 400 to aws-chunked and trailing checksums."""
    said: str = "said so"
    """The message of every refusal."""
    locked: bool = False
    """Object Lock: 400 without Content-MD5 or a checksum in a header, and to one that does not fit."""
    requester_pays: bool = False
    """403 without the agreement to pay."""
    archived: bool = False
    """What is stored goes to Glacier at once."""
    base: str = ""
    """A path before the bucket."""
    lists: Literal["", "without tokens", "empty pages", "one token"] = ""
    """Long lists: cut without saying where they go on, begun by an empty page, or going on at the same place for ever."""
    status: int = 0
    """Answer everything by this status."""
    headers: dict[str, str] = field(default_factory=dict)
    code: str = "Failed"
    page: bytes = b""
    """Answer everything by this page, as a web console does."""
    makes_buckets: bool = False
    """There is no bucket until the first PUT, which makes it, as SeaweedFS does for an administrator's key."""
    heads_buckets: bool = True
    """Whether HEAD of a bucket is known; 404 where not."""


class Vendor:
    """The server's objects and what it was asked, under one lock."""

    def __init__(self, habits: Habits) -> None:
        self.habits, self.lock = habits, threading.Lock()
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        self.headers: list[set[str]] = []
        """Names of each upload's headers, in small letters."""
        self.regions: set[str] = set()
        """For which uploads were signed."""
        self.busy: set[str] = set()
        self.endpoint = ""


@contextmanager
def vendor(habits: Habits, certificate: tuple[Path, Path] | None = None) -> Iterator[Vendor]:
    """Run a server on a free port; with a certificate (its file and its key's) it speaks TLS."""
    served = Vendor(habits)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"vendor": served}))
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    served.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    vendor: Vendor
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError, ssl.SSLError):  # the client went away, which some tests are about
            super().handle()

    def handle_expect_100(self) -> bool:
        return True if self._misfits() else super().handle_expect_100()

    def do_PUT(self) -> None:
        self.vendor.regions.add(self.headers["Authorization"].split("/")[2])
        if refusal := self._misfits():
            self.close_connection = True
            return self._error(*refusal)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.vendor.headers.append({name.lower() for name in self.headers})
        if self._always() or self._unpaid():
            return None
        if self.vendor.habits.locked and not self._protected(body):
            return self._error(400, "InvalidRequest")
        key, query = self._target()
        with self.vendor.lock:
            if "uploadId" in query:
                self.vendor.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            elif refusal := self._condition(key):
                return self._error(*refusal)
            else:
                metadata = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
                self.vendor.objects[key] = (body, metadata)
        return self._send(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key, query = self._target()
        with self.vendor.lock:
            if "uploads" in query:
                number = str(len(self.vendor.uploads) + 1)
                self.vendor.uploads[number] = {}
                return self._xml(f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>")
            assert b"CompleteMultipartUpload" in body
            parts = self.vendor.uploads.pop(query["uploadId"][0])
            self.vendor.objects[key] = (b"".join(parts[number] for number in sorted(parts)), {})
        return self._xml("<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def do_GET(self) -> None:
        if self._always() or self._unpaid():
            return None
        key, query = self._target()
        if self._has_no_bucket():
            return self._error(404, "NoSuchBucket")
        if not key:
            return self._list(query)
        with self.vendor.lock:
            found = self.vendor.objects.get(key)
        if found is None:
            return self._error(404, "NoSuchKey")
        if self.vendor.habits.archived:
            return self._error(403, "InvalidObjectState")
        body, metadata = found
        return self._send(200, body, {"ETag": hashlib.md5(body).hexdigest(), **metadata})  # without quotes, as Ceph does

    def do_HEAD(self) -> None:
        key, _ = self._target()
        missing = self._has_no_bucket() or not (key or self.vendor.habits.heads_buckets)
        self.send_response(404 if missing else self.vendor.habits.status or 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        with self.vendor.lock:
            self.vendor.objects.pop(self._target()[0], None)
        self._send(204)

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        after, limit = query.get("continuation-token", [""])[0], int(query.get("max-keys", ["1000"])[0])
        with self.vendor.lock:
            sizes = {key: len(body) for key, (body, _) in self.vendor.objects.items() if key.startswith(prefix)}
        names = sorted({_rolled_up(key, prefix, delimiter) for key in sizes})
        page = [name for name in names if name > after][:limit]
        parts = [
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if delimiter and name.endswith(delimiter) and name not in sizes
            else f"<Contents><Key>{escape(name)}</Key><Size>{sizes.get(name, 0)}</Size></Contents>"
            for name in page
        ]
        more, following = bool(page) and page[-1] != names[-1], page[-1] if page else ""
        if self.vendor.habits.lists == "empty pages" and not after:
            parts, more, following = [], True, "!"
        if self.vendor.habits.lists == "one token":
            parts, more, following = [], True, "!"
        token = f"<NextContinuationToken>{escape(following)}</NextContinuationToken>" if more else ""
        if self.vendor.habits.lists == "without tokens":
            token = ""
        self._xml(
            f"<ListBucketResult><Name>b</Name><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(parts)}</ListBucketResult>"
        )

    def _target(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix(f"{self.vendor.habits.base}/")
        self.vendor.requests.append(f"{self.command} {self.path}")
        return path.partition("/")[2], parse_qs(parts.query, keep_blank_values=True)

    def _unpaid(self) -> bool:
        if not self.vendor.habits.requester_pays or self.headers.get("x-amz-request-payer") == "requester":
            return False
        self._error(403, "AccessDenied")
        return True

    def _protected(self, body: bytes) -> bool:
        if "Content-MD5" in self.headers:
            return base64.b64decode(self.headers["Content-MD5"]) == hashlib.md5(body).digest()
        return "x-amz-checksum-crc32" in self.headers

    def _misfits(self) -> tuple[int, str] | None:
        if not self.vendor.habits.plain_uploads_only:
            return None
        if "Content-Length" not in self.headers:
            return 411, "MissingContentLength"
        chunked = "aws-chunked" in self.headers.get("Content-Encoding", "") or "x-amz-trailer" in self.headers
        return (400, "InvalidRequest") if chunked else None

    def _condition(self, key: str) -> tuple[int, str] | None:
        habit, taken = self.vendor.habits.condition, key in self.vendor.objects
        if "If-None-Match" not in self.headers or habit == "ignored":
            return None
        if habit == "501":
            return 501, "NotImplemented"
        if habit == "400":
            return 400, "NotImplemented"
        if habit == "409 when busy" and key not in self.vendor.busy:
            self.vendor.busy.add(key)
            return 409, "ConditionalRequestConflict"
        if habit == "409 when busy":
            self.vendor.busy.discard(key)
        if not taken:
            return None
        return {"304": (304, ""), "409 when taken": (409, "ObjectAlreadyExists")}.get(habit, (412, "PreconditionFailed"))

    def _has_no_bucket(self) -> bool:
        return self.vendor.habits.makes_buckets and not self.vendor.objects

    def _always(self) -> bool:
        habits = self.vendor.habits
        if habits.status:
            self._error(habits.status, habits.code, habits.headers)
        elif habits.page:
            self._send(200, habits.page, {"Content-Type": "text/html"})
        return bool(habits.status or habits.page)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(
            status,
            b"" if status == 304 else f"<Error><Code>{code}</Code><Message>{self.vendor.habits.said}</Message></Error>".encode(),
            headers,
        )

    def _xml(self, body: str) -> None:
        self._send(200, f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode())

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _rolled_up(key: str, prefix: str, delimiter: str) -> str:
    rest = key[len(prefix) :]
    return prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else key
