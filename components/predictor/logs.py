"""Log lines in JSON on standard error: few, each with a time, a level, an event and its fields."""

import logging
import sys
from typing import Any

import structlog

LOGGER = "penstock.predictor"
_NOISY = ("kserve", "kserve.trace", "uvicorn.access", "uvicorn.error", "uvicorn", "access")


def configure(console: bool = False) -> None:
    """Send our events, and other libraries' warnings, to standard error: as JSON, or readable for a person at a `console`.

    Call it after creating KServe's ModelServer, which configures logging in its own way.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _NOISY:
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(logging.ERROR if name.startswith("uvicorn") else logging.CRITICAL)  # KServe logs a traceback for a client's mistake
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.access").propagate = False  # uvicorn formats a line per request as long as any handler exists


def log() -> Any:
    """Return the predictor's logger: `log().info("event", key=value)`."""
    return structlog.get_logger(LOGGER)
