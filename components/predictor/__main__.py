"""`python -m components.predictor --model_name digits --model_dir /mnt/models`: serve one model version by KServe's protocols."""

import os
import signal

if __name__ == "__main__" and os.getpid() == 1:
    # A container's first process ignores signals without a handler: stopped while it imports, it would run until it is killed.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from components.classifier.errors import UsageError
from components.classifier.extras import named_where_missing

with named_where_missing():
    from components.predictor import sdk
    from components.predictor.loaded_model import load
    from components.predictor.server import PredictorServer
    from components.predictor.settings import PredictorSettings

_KSERVE_OPTIONS = {"ssl_certfile", "ssl_keyfile", "enable_docs_url", "enable_latency_logging", "configure_logging", "event_loop"}
"""KServe's options that its own server reads, or that are accepted and ignored: already this server's behaviour."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the predictor until a signal comes; returns the exit code."""
    try:
        settings = _settings(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    server = PredictorServer(settings)
    batches = settings.batch_seconds > 0
    return server.run(lambda it: it.serve(load(settings.model_name, settings.model_dir, settings.threads, settings.device, batches)))


def _settings(arguments: Sequence[str] | None) -> PredictorSettings:
    """Arguments win over PENSTOCK_* variables."""
    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    if given.pop("workers", 1) != 1:
        raise UsageError("--workers must be 1: several would have separate metrics and lose requests at shutdown; raise the replicas")
    if "timeout_keep_alive" in given:
        given["keep_alive"] = given.pop("timeout_keep_alive")
    for name in given.keys() - PredictorSettings.model_fields.keys() - _KSERVE_OPTIONS:
        raise UsageError(f"--{name} has no effect on this predictor; leave it out (--help lists the options)")
    try:
        return PredictorSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{first['loc'][0]}: {first['msg']}; see --help") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m components.predictor", description=__doc__, parents=[sdk.parser])
    for action in parser._actions:
        action.default = None  # so that an environment variable is used where no argument is given
    for name, field in PredictorSettings.model_fields.items():
        if f"--{name}" not in parser._option_string_actions:
            parser.add_argument(f"--{name}", default=None, help=f"default: {field.default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
