"""Send a pipeline to a Kubeflow Pipelines server."""

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.classifier.errors import PenstockError, UsageError, first_line
from components.settings.serving import clean_token
from components.storage.nearby import is_http
from pipelines.catalogue import load_pipeline
from pipelines.kfp_inside import add_plugins

if TYPE_CHECKING:
    from kfp import Client

TIMEOUT_SECONDS = 30
POLL_SECONDS = 5.0
POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
"""Where a pod has the token of its account for Kubeflow Pipelines; KF_PIPELINES_SA_TOKEN_PATH names another file, as for kfp."""
NO_EXPERIMENT = "none"
"""In place of an experiment: the run is kept out of MLflow."""
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
"""States that a run of Kubeflow Pipelines does not leave."""


class SubmissionFailed(PenstockError):
    """The Kubeflow server did not take what it was sent."""


@dataclass(frozen=True)
class Submission:
    """A run that the server took: its id and where to watch it."""

    run_id: str
    url: str
    mlflow: str = ""
    """The page of the MLflow run that the server started; empty where it started none."""


@dataclass(frozen=True)
class Server:
    """How to reach Kubeflow Pipelines.

    `namespace` is the profile on a multi-user Kubeflow, empty on a standalone one. `token` is a bearer token; a pod without one
    shows the token of its account that is projected for Kubeflow Pipelines. `ca` is a file of certificates for a private CA.
    """

    host: str
    namespace: str = ""
    token: str = ""
    ca: str = ""
    verify_tls: bool = True

    @property
    def bearer(self) -> str:
        """The token to show; a pod's is read anew each time, since the cluster renews it. Empty where there is none."""
        projected = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", POD_TOKEN))
        return clean_token(self.token, "KFP_TOKEN") or (projected.read_text("utf-8").strip() if projected.is_file() else "")


def submit(
    pipeline: str,
    arguments: dict[str, Any],
    server: Server,
    *,
    experiment: str,
    service_account: str = "",
    mlflow: str = "",
) -> Submission:
    """Compile a pipeline and start a run of it with these arguments.

    `mlflow`: the experiment in which Kubeflow's own MLflow plugin shall keep the run; `none` keeps it out of MLflow.

    Raises UsageError for a host of another form and for an image that is not known or can change, SubmissionFailed when the
    server cannot be reached, refuses, or names no ID of the run.
    """
    with compiled(pipeline) as package, connected(server) as client:
        plugins = add_plugins(client, mlflow_plugin(mlflow)) if mlflow else []
        started = client.create_run_from_pipeline_package(
            package,
            arguments=arguments,
            run_name=f"{'-'.join(filter(None, (pipeline, arguments.get('name'))))} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            experiment_name=experiment,
            namespace=server.namespace or None,
            service_account=service_account or None,
        )
    if not started.run_id:
        raise SubmissionFailed(f"{server.host} took the run but named no ID for it; look for it in its list of runs, and check --host")
    return Submission(started.run_id, _address(server, started.run_id), _mlflow_page(plugins))


def mlflow_plugin(experiment: str) -> dict[str, Any]:
    """What Kubeflow's MLflow plugin is told: the experiment's name, or to leave the run alone where that is `none`."""
    return {"mlflow": {"disabled": True} if experiment == NO_EXPERIMENT else {"experiment_name": experiment}}


def _mlflow_page(answers: list[Any]) -> str:
    """The page of the MLflow run in a server's answer; empty where it has no such plugin, or could not reach MLflow."""
    for answer in answers:
        told = (answer.plugins_output or {}).get("mlflow")
        if told and (page := (told.entries or {}).get("run_url")):
            return str(page.value)
    return ""


@contextlib.contextmanager
def compiled(pipeline: str) -> Iterator[str]:
    """Give the path of a pipeline's YAML, which is there as long as the block runs.

    Raises UsageError for an unknown pipeline and for an image that is not known or can change.
    """
    from kfp import compiler

    from pipelines.compile import check_images, check_resources

    loaded = load_pipeline(pipeline)
    check_images(loaded)
    check_resources()
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / f"{pipeline}.yaml")
        with _quiet():
            compiler.Compiler().compile(loaded, package_path=package)
        yield package


@contextlib.contextmanager
def connected(server: Server) -> Iterator["Client"]:
    """Give kfp's client of a server that answers; what kfp prints in the block is dropped, and what fails is one line.

    Raises UsageError for a host of another form, SubmissionFailed when the server cannot be reached or refuses.
    """
    if not is_http(server.host):
        raise UsageError(f"--host takes an address such as https://kubeflow.example/pipeline, got {server.host!r}")
    _check_answers(server)
    with _quiet(), _errors_of(server):
        yield _client(server)


def watch(pipeline: str, run_id: str, server: Server, tell: Callable[[str, str], None], seconds: float = POLL_SECONDS) -> None:
    """Follow a run to its end: call `tell` with a step's name and state, in lower case, whenever that state is another.

    Kubeflow's API lists more than steps: drivers, the groups around steps, and each try of all of these.

    Raises UsageError for an unknown pipeline, SubmissionFailed when the run does not succeed, and when the server cannot be asked any
    more; the run then goes on.
    """
    from tenacity import Retrying, retry_if_result, wait_fixed

    from components.settings.resources import step_name
    from pipelines.compile import steps_of

    steps = steps_of(pipeline)
    seen = dict[str, str]()

    def state() -> str:
        with _errors_of(server):
            run = _client(server).get_run(run_id)  # a new client each time: the cluster renews a pod's token
        for task in (run.run_details and run.run_details.task_details) or []:
            name, now = str(task.display_name), str(task.state or "PENDING").lower()
            if step_name(name) in steps and seen.get(str(task.task_id)) != now:
                seen[str(task.task_id)] = now
                tell(name, now)
        return str(run.state or "PENDING")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # `tell` prints, so standard output stays open
        ended = Retrying(retry=retry_if_result(lambda found: found not in ENDED), wait=wait_fixed(seconds))(state)
    if ended != "SUCCEEDED":
        raise SubmissionFailed(f"run {run_id} ended as {ended.lower()}; its steps' logs are at {_address(server, run_id)}")


def is_active(run_id: str, server: Server) -> bool:
    """Say whether a run goes on; one that the server does not know (any more) does not. Raises what `connected` raises."""
    import kfp_server_api

    with connected(server) as client:
        try:
            run = client.get_run(run_id)
        except kfp_server_api.ApiException as error:
            if error.status != 404:
                raise
            return False
        return str(run.state or "PENDING") not in ENDED


def _client(server: Server) -> "Client":
    import kfp

    with _quiet(), _errors_of(server):
        return kfp.Client(
            host=server.host,
            namespace=server.namespace or "kubeflow",
            existing_token=server.bearer or None,
            ssl_ca_cert=server.ca or None,
            verify_ssl=server.verify_tls,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what kfp prints, as a notebook would show it, and its warnings, which are for whoever writes pipelines."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


@contextlib.contextmanager
def _errors_of(server: Server) -> Iterator[None]:
    """Raise SubmissionFailed in place of what kfp raises when a server refuses or cannot be reached."""
    import kfp_server_api
    import requests
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        raise SubmissionFailed(f"{server.host} answered {error.status} {_reason(error)}; {_remedy(error.status)}") from error
    except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
        tried = error.args[0] if error.args and isinstance(error.args[0], urllib3.exceptions.MaxRetryError) else error
        cause = first_line(getattr(tried, "reason", None) or error)  # without the retries around it
        raise SubmissionFailed(f"{server.host} cannot be reached ({cause}); check the address, a port-forward and --ca") from error


def _address(server: Server, run_id: str) -> str:
    return f"{server.host.rstrip('/')}/#/runs/details/{run_id}"


def _check_answers(server: Server) -> None:
    """Ask for the server's health; kfp's client asks too, but five times, and does not tell the HTTP status."""
    import requests

    from components.storage.nearby import requests_proxies

    with _errors_of(server):
        answer = requests.get(
            f"{server.host.rstrip('/')}/apis/v2beta1/healthz",
            headers={"Authorization": f"Bearer {token}"} if (token := server.bearer) else {},
            verify=(server.ca or True) if server.verify_tls else False,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
            proxies=requests_proxies(server.host),
        )
    if answer.is_redirect:
        raise SubmissionFailed(f"{server.host} asks for a login ({answer.status_code}); give a token by --token or KFP_TOKEN")
    if not answer.ok:
        raise SubmissionFailed(
            f"{server.host} answered {answer.status_code} {' '.join(answer.text.split())[:200]}; {_remedy(answer.status_code)}"
        )


def _reason(error: Any) -> str:
    body = " ".join(str(error.body or error.reason or "").split())
    return body[:200]


def _remedy(status: int | None) -> str:
    if status in {401, 403}:
        return "give a token by --token or KFP_TOKEN, and the profile by --namespace"
    if status == 404:
        return "give the address of the Pipelines API: on Kubeflow it ends in /pipeline"
    return "the server's log says more"
