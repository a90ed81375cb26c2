"""A clean start for each test, and a web server in a thread."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from components.integrations import observe

Serve = Callable[[FastAPI], str]


@pytest.fixture(autouse=True)
def nothing_given_up() -> Iterator[None]:
    yield
    observe._given_up.clear()


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Serves applications on ports of the system's choice, to the end of the module; returns their addresses."""
    running = []

    def start(app: FastAPI) -> str:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        socket = server.config.bind_socket()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{socket.getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()
