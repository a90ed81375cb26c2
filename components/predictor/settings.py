"""What can be set about the predictor; every field is also an environment variable, `PENSTOCK_` and its name in capitals."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class Settings(BaseSettings):
    """The predictor's settings; see docs/serving.md for what each is good for."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore", protected_namespaces=())

    model_name: str = Field("model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """The name in the URL."""
    model_dir: Path = Path("/mnt/models")
    """A model version's folder, with its manifest."""
    host: str = "0.0.0.0"
    """The address to listen on."""
    http_port: int = Field(8080, ge=0, le=65535)
    grpc_port: int = Field(8081, ge=0, le=65535)
    enable_grpc: bool = False

    review_threshold: float = Field(0.8, ge=0, le=1)
    """A prediction less confident than this needs a person's look; a request may ask for another bound for itself."""
    review_store: str = ""
    """Where pictures that need a look are queued (a store address); empty: nowhere."""
    audit_rate: float = Field(0.01, ge=0, le=1)
    """Share of all pictures that are queued too, however sure the model was."""

    max_body_bytes: int = Field(8 * MEBIBYTE, ge=1024)
    max_images: int = Field(256, ge=1)
    """Pictures in one request."""
    max_pixels: int = Field(25_000_000, ge=1)
    """Pixels of one picture before it is resized; a request may hold four times as many in all."""
    queue_size: int = Field(128, ge=1)
    """Requests that wait for the model, above which new ones get 503 and Retry-After."""
    max_pending_bytes: int = Field(64 * MEBIBYTE, ge=1024)
    """Bytes of request bodies held at once, above which new ones get 503 and Retry-After."""
    max_connections: int = Field(2048, ge=1)
    header_timeout: float = Field(10, gt=0)
    """Seconds in which a request's line and headers must have come."""
    body_timeout: float = Field(30, gt=0)
    """Seconds in which its body must have come, and in which an answer must have been taken."""
    keep_alive: int = Field(75, ge=1)
    """Seconds after which an idle connection is closed."""
    drain_seconds: float = Field(2, ge=0)
    """After SIGTERM: seconds in which requests are still taken while readiness says no."""
    grace_seconds: int = Field(30, ge=1)
    """Then: seconds that requests in flight may take."""
    threads: int = Field(0, ge=0)
    """Threads of onnxruntime; 0: the container's CPU quota."""
    stop_with_parent: bool = False
    """End when the process that started this one is gone: for tools that start a predictor of their own."""
    access_log: bool = False
    """One JSON line a request, not only for failures of the server."""
