"""How an S3 store is reached: the standard AWS environment, tidied, and a few settings of ours."""

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.classifier.errors import UsageError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_FORM = "write it as http://HOST:PORT or https://HOST:PORT, or unset it for AWS itself"


class S3Settings(BaseSettings):
    """Settings that the AWS environment has no name for; read from PENSTOCK_S3_ADDRESSING, PENSTOCK_S3_TIMEOUT_S and so on."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_S3_", frozen=True, env_ignore_empty=True)
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket's name goes: into the path, or before the host. Auto: the path for every endpoint but AWS' own."""
    encryption: Literal["", "AES256", "aws:kms", "aws:kms:dsse"] = ""
    """Server-side encryption to ask for with every object; empty leaves it to the bucket."""
    kms_key: str = ""
    """The KMS key for `aws:kms`; empty takes the account's own."""
    request_payer: Literal["", "requester"] = ""
    """`requester` agrees to pay for requests to a requester-pays bucket."""
    timeout_s: float = Field(default=20, gt=0)
    """Seconds to wait for a connection, and for the next bytes of an answer."""
    deadline_s: float = Field(default=90, gt=0)
    """Seconds after which no request is tried again. Moving a file may take longer by a second for each 256 KiB."""


def load_settings() -> S3Settings:
    """Read the settings; raises UsageError naming the one that is wrong."""
    try:
        return S3Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise UsageError(f"PENSTOCK_S3_{name} {first['input']!r} is not usable: {first['msg']}") from error


def split_address(address: str) -> tuple[str, str]:
    """Split `s3://bucket/prefix` into the bucket and the prefix, which is empty or ends with `/`.

    Raises UsageError for an address without a bucket, or with a part that cannot be a key.
    """
    bucket, _, path = address.removeprefix("s3://").partition("/")
    parts = path.strip("/").split("/") if path.strip("/") else []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", bucket) or any(part in {"", ".", ".."} for part in parts):
        raise UsageError(f"store address {address!r} is not usable; write it as s3://bucket or s3://bucket/prefix")
    return bucket, "".join(f"{part}/" for part in parts)


def endpoint() -> str | None:
    """Return the endpoint that the AWS environment names, tidied: no blanks around it, no slash or dot at its end.

    None where it names none. Raises UsageError, naming the variable and its value, for one that cannot be an address: nothing
    should be sent to AWS, or to nowhere, because a variable was not filled in.
    """
    for name in _ENDPOINTS:
        if name in os.environ:
            return tidy_endpoint(os.environ[name], name)
    return None


def tidy_endpoint(value: str, name: str) -> str:
    """Tidy one endpoint that stands in the variable `name`; see `endpoint`."""
    text = value.strip().rstrip("/")
    if not text:
        raise UsageError(f"{name} is set but blank ({value!r}); {_FORM}")
    if re.search(r"[$<>{}()\"'`\\\s]", text):
        raise UsageError(f"{name} {value!r} holds a variable that was not replaced, a quote or a blank; {_FORM}")
    if not re.match(r"https?://", text, re.IGNORECASE):
        raise UsageError(f"{name} {value!r} does not start with http:// or https://; {_FORM}")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise UsageError(f"{name} {value!r} is not an address ({error}); {_FORM}") from error
    if parts.username is not None:
        raise UsageError(
            f"{name} holds a user and password before the host; {_FORM}, and put keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.query or parts.fragment:
        raise UsageError(f"{name} {value!r} holds a query or a fragment; {_FORM}")
    if ":" in host:
        host = f"[{host}]"
    elif not _HOST.fullmatch(host):
        raise UsageError(f"{name} {value!r} has no usable host name; {_FORM}")
    if parts.path and not re.fullmatch(r"(/(?!\.)[A-Za-z0-9._~-]+)+", parts.path):
        raise UsageError(f"{name} {value!r} has a path that is not usable; {_FORM}")
    return f"{parts.scheme.lower()}://{host}{'' if port is None else f':{port}'}{parts.path}"


def ca_bundle() -> str | None:
    """Return AWS_CA_BUNDLE; raises UsageError when it names no readable file, which botocore would report late and dimly."""
    path = os.environ.get("AWS_CA_BUNDLE", "").strip()
    if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
        raise UsageError(
            f"AWS_CA_BUNDLE {path!r} is not a readable file; name a PEM file with the certificate of your authority, or unset it"
        )
    return path or None
