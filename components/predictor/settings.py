"""The predictor's settings; every field is also an environment variable, `PENSTOCK_` and its name in capitals."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class PredictorSettings(BaseSettings):
    """The predictor's settings; docs/serving.md says what each is for."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore", protected_namespaces=())

    model_name: str = Field("model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """The name in the URL."""
    model_dir: Path = Path("/mnt/models")
    """A model version's folder, with its manifest."""
    host: str = "::"
    """The address to listen on; `::` is all of IPv6 and IPv4, or of IPv4 where there is no IPv6, and 0.0.0.0 all of IPv4."""
    http_port: int = Field(8080, ge=0, le=65535)
    probe_port: int | None = Field(None, ge=0, le=65535)
    """Another port, for health checks only, where they do not wait behind the connections of all clients; empty: none."""
    grpc_port: int = Field(8081, ge=0, le=65535)
    enable_grpc: bool = False

    review_threshold: float = Field(0.8, ge=0, le=1)
    """A prediction less confident than this needs review; a request may set its own threshold for its own answer."""
    review_store: str = ""
    """Where pictures that need review are queued (a store address); empty: nowhere."""
    audit_rate: float = Field(0.01, ge=0, le=1)
    """Share of all pictures that are queued too, whatever the confidence."""
    audit_key: SecretStr = SecretStr("")
    """Decides with a picture which ones these are, so that no sender can; give all replicas the same. Empty: a new one per process."""
    review_per_hour: int = Field(200, ge=1)
    """Pictures per hour that are queued of one class, version and reason; further ones are dropped and counted."""
    replicas: int = Field(1, ge=1)
    """How many predictors share `review_per_hour`."""
    shadow_share: float = Field(0, ge=0, le=1)
    """Share of the requests that is copied to a challenger's service, while there is one; 0: none."""
    shadow_url: str = ""
    """Where that service is; empty: `<model>-canary-predictor` in the same namespace."""

    max_body_bytes: int = Field(8 * MEBIBYTE, ge=1024)
    max_images: int = Field(256, ge=1)
    """Pictures in one request."""
    max_pixels: int = Field(25_000_000, ge=1)
    """Pixels of one picture before it is resized; a request may hold four times as many in all."""
    queue_size: int = Field(128, ge=1)
    """Requests that may wait for the model; further ones get 503 and Retry-After."""
    queue_seconds: float = Field(30, gt=0)
    """Seconds that a request may wait for the model; after that it gets 503 and Retry-After."""
    decode_seconds: float = Field(10, gt=0)
    """Seconds that decoding one large picture may take; after that it gets 413."""
    max_pending_bytes: int = Field(64 * MEBIBYTE, ge=1024)
    """Bytes of request bodies that may be held at once; further ones get 503 and Retry-After."""
    max_connections: int = Field(2048, ge=1)
    header_timeout: float = Field(10, gt=0)
    """Seconds in which a request's line and headers must arrive."""
    body_timeout: float = Field(30, gt=0)
    """Seconds in which its body must arrive, and in which the client must read the response."""
    keep_alive: int = Field(75, ge=1)
    """Seconds after which an idle connection is closed."""
    drain_seconds: float = Field(2, ge=0)
    """After SIGTERM: seconds in which requests are still accepted while readiness is 503."""
    grace_seconds: int = Field(30, ge=1)
    """After that: seconds that requests in flight may take."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What runs the model; a GPU that is asked for and cannot be used ends the server before it listens."""
    batch_window_ms: float | None = Field(None, ge=0, le=2)
    """Milliseconds that a request may wait for others, to run the model on all their pictures at once. 0: none does; empty: 2 on a GPU."""
    threads: int = Field(0, ge=0)
    """Threads of onnxruntime; 0: the container's CPU quota."""
    stop_with_parent: bool = False
    """End when the process that started this one ends: for tools that start a predictor of their own."""
    access_log: bool = False
    """Log one JSON line per request, not only failures of the server."""

    @property
    def batch_seconds(self) -> float:
        """Seconds in which pictures of several requests are gathered; 0: they are not."""
        milliseconds = (2.0 if self.device == "cuda" else 0.0) if self.batch_window_ms is None else self.batch_window_ms
        return milliseconds / 1000
