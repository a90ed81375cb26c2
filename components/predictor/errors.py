"""The predictor's own failures, beside RequestError: those that are the server's fault."""


class Unavailable(Exception):
    """The server cannot answer now; status 503, and the client may try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Disconnected(Exception):
    """The client closed the connection, so that nobody waits for an answer."""


class HandOver(Exception):
    """A request is too much for the thread that began it; another one takes it from the start."""


class ModelFailure(Exception):
    """The model gave a probability that is not finite; status 500."""
