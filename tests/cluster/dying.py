"""A deploy step that is killed on the way: `python -m tests.cluster.dying STORE NAMESPACE VERSION RUN SERVING PATTERN WHEN`.

SIGKILL comes before the request that PATTERN first matches is sent, or (WHEN is `after`) before the next one, when the server has done
it; `pause` stops there instead, until it is told to go on. An empty PATTERN lets the step go through.
"""

import json
import os
import re
import signal
import sys
from typing import Any

from components.classifier.errors import RolloutError
from components.deploy.kserve.rollout import deploy_kserve
from components.deploy.request import DeployRequest
from components.registry import Registry
from components.storage import open_store

STOPS = {"before": signal.SIGKILL, "after": signal.SIGKILL, "pause": signal.SIGSTOP}


def watch(pattern: str, when: str) -> None:
    armed = done = False

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal armed, done
        if event != "http.client.send" or done or not isinstance(arguments[1], bytes):
            return
        line = arguments[1].split(b"\r\n", 1)[0].decode("latin-1")
        if not re.match(r"[A-Z]+ /\S* HTTP/1", line):
            return  # a body
        if armed or (re.search(pattern, line) and when != "after"):
            done = True
            os.kill(os.getpid(), STOPS[when])
        armed = armed or bool(re.search(pattern, line))

    sys.addaudithook(audit)


def main(store: str, namespace: str, version: str, run: str, serving: str, pattern: str, when: str) -> int:
    if pattern:
        watch(pattern, when)
    request = DeployRequest(version, "manual", None, "dev", "ann", "test", "kserve", namespace, run, json.loads(serving))
    try:
        print(deploy_kserve(Registry(open_store(store), "digits"), request))
    except RolloutError as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
