"""What S3 servers answer, told as errors of ours: the cause, and what helps."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from botocore import exceptions as aws

from components.classifier.errors import AccessDenied, ObjectNotFound, StoreError, StoreUnavailable, StoreUnsuitable

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_SKEW_S = 240
SLOW = "look at the server and the network, try again later, or raise PENSTOCK_S3_TIMEOUT_S and PENSTOCK_S3_DEADLINE_S"
NO_CREDENTIALS = f"set {_KEYS}, or AWS_PROFILE, or give the pod a service account that has a role"


class DeadlinePassed(Exception):
    """Raised inside botocore before a request that would start too late; `last` is how the one before it ended."""

    def __init__(self, last: Exception | None) -> None:
        super().__init__("the deadline has passed")
        self.last = last


@dataclass(frozen=True)
class Answer:
    """An error answer: S3's code (or the status as text where there is no body), the HTTP status, the message, and three headers."""

    code: str
    status: int
    message: str
    date: str = ""
    region: str = ""
    type: str = ""


def explain(error: Exception, doing: str, bucket: str, where: str) -> StoreError:
    """Make the error of ours for one of botocore's that came while `doing` ("read 'a/b' from s3://bucket") at the endpoint `where`."""
    if isinstance(error, DeadlinePassed) and error.last is not None:
        cause = explain(error.last, doing, bucket, where)
        if isinstance(cause, StoreUnavailable):  # what kept it from ending in time, and no answer to an earlier request
            return cause
    if isinstance(error, aws.ClientError):
        return _explain_answer(_answer(error), doing, bucket, where)
    cannot = f"cannot {doing} ({where})"
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.CredentialRetrievalError | aws.TokenRetrievalError):
        return AccessDenied(f"{cannot}: no usable credentials ({error}); {NO_CREDENTIALS}")
    if isinstance(error, aws.SSLError):
        return StoreUnavailable(f"{cannot}: {_tls(str(error))}")
    if isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError | aws.ProxyConnectionError):
        return StoreUnavailable(f"{cannot}: no connection ({error}); check AWS_ENDPOINT_URL, the network and that the server runs")
    if isinstance(error, aws.HTTPClientError | aws.IncompleteReadError | DeadlinePassed):
        return StoreUnavailable(f"{cannot}: the connection broke or gave no answer in time ({error}); {SLOW}")
    return StoreError(f"{cannot}: {error}; check the store's address, AWS_ENDPOINT_URL and that an S3 server answers there")


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error answer, None where there was no answer."""
    if not isinstance(error, aws.ClientError):
        return None
    if error.response.get("Error", {}).get("Code") == "NotImplemented":
        return 501
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: aws.ClientError) -> Answer:
    about, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    return Answer(
        code=about.get("Code") or "",  # some servers leave them empty
        status=status_of(error) or 0,
        message=about.get("Message") or "",
        date=headers.get("date", ""),
        region=headers.get("x-amz-bucket-region", ""),
        type=headers.get("content-type", ""),
    )


def _explain_answer(answer: Answer, doing: str, bucket: str, where: str) -> StoreError:
    said = f"{answer.code}: {answer.message}" if answer.message and answer.message != answer.code else answer.code
    cannot = f"cannot {doing} ({where})"
    if answer.code == "NoSuchBucket":
        return StoreError(no_bucket(cannot, bucket))
    if answer.status == 404:
        return ObjectNotFound(f"{cannot}: there is no such object")
    if answer.code in {"RequestTimeTooSkewed", "RequestExpired"} or (answer.status == 403 and abs(skew_s(answer.date)) > _SKEW_S):
        return AccessDenied(f"{cannot}: {_clock(answer)}")
    if answer.status in {301, 307} or answer.code in {
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraintException",
    }:
        region = answer.region or "".join(re.findall(r"expecting '([a-z0-9-]+)'", answer.message)[:1])
        return StoreError(f"{cannot}: the bucket is in another region; set AWS_REGION{f' to {region}' if region else ''} ({said})")
    if answer.code == "InvalidObjectState":
        return StoreError(
            f"{cannot}: the object is archived ({said}); restore it first (`aws s3api restore-object`), and exempt the registry from the "
            "lifecycle rule that moves objects to Glacier"
        )
    if answer.code.startswith("KMS.") or re.search(r"\bkms\b", answer.message, re.IGNORECASE):
        return AccessDenied(
            f"{cannot}: the encryption key cannot be used ({said}); check PENSTOCK_S3_KMS_KEY, and the rights kms:GenerateDataKey and "
            "kms:Decrypt on the key"
        )
    if answer.status in {401, 403} or answer.code in {"ExpiredToken", "InvalidToken", "InvalidAccessKeyId"}:
        return AccessDenied(f"{cannot}: {_denied(answer)} ({said})")
    if answer.status == 501:
        return StoreUnsuitable(f"{cannot}: the server does not have this function ({said}); use another server or a newer release of it")
    if answer.status == 507 or "StorageFull" in answer.code or "Quota" in answer.code:
        return StoreError(f"{cannot}: the store is full or its quota used up ({said}); free space there")
    if answer.status >= 500 or answer.status in {408, 429} or answer.code in {"SlowDown", "RequestTimeout", "Throttling"}:
        page = "; the answer is a web page: check that AWS_ENDPOINT_URL names the S3 port, not a console's" if "html" in answer.type else ""
        return StoreUnavailable(f"{cannot}: the server keeps failing ({said}); try again later, or look at the server{page}")
    return StoreError(
        f"{cannot}: the server refused ({answer.status} {said}); check the store's address, the endpoint and the bucket's settings"
    )


def no_bucket(cannot: str, bucket: str) -> str:
    """Tell of a bucket that is not there; nobody makes one."""
    return f"{cannot}: bucket {bucket!r} does not exist; create it, or correct the store's address or the endpoint"


def _tls(error: str) -> str:
    """Tell an error of TLS, which is mostly a private authority or a server without TLS."""
    if "WRONG_VERSION_NUMBER" in error or "UNKNOWN_PROTOCOL" in error or "record layer" in error.lower():
        return f"no TLS is spoken there ({error}); begin AWS_ENDPOINT_URL with http://, or correct its port"
    return (
        f"the TLS certificate is not trusted or not valid ({error}); set AWS_CA_BUNDLE to a PEM file with the certificate of your authority"
    )


def skew_s(date: str) -> float:
    """Return by how many seconds this machine's clock is ahead of the server's `Date` header; 0 when it says nothing."""
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _clock(answer: Answer) -> str:
    minutes = round(skew_s(answer.date) / 60)
    by = f"is {abs(minutes)} min {'ahead of' if minutes > 0 else 'behind'}" if minutes else "differs from"
    return f"this machine's clock {by} the server's; set the clock (chrony or NTP) and try again"


def _denied(answer: Answer) -> str:
    if answer.code == "SignatureDoesNotMatch":
        return f"the secret key does not fit; check AWS_SECRET_ACCESS_KEY (no blanks, nothing cut off), and {_KEYS} belonging together"
    if answer.code == "InvalidAccessKeyId":
        return "the server does not know this access key; check AWS_ACCESS_KEY_ID, and that the endpoint is the right one"
    if answer.code in {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}:
        return "the session token has expired or does not fit; get new credentials, or unset AWS_SESSION_TOKEN"
    return (
        f"access denied; check {_KEYS}, and that they may s3:ListBucket, s3:GetObject, s3:PutObject and (for delete) s3:DeleteObject "
        "there; a requester-pays bucket needs PENSTOCK_S3_REQUEST_PAYER=requester"
    )
