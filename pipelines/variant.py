"""The variant pipeline: from published versions to a smaller or better one that passes the same gate, without training."""

from typing import NamedTuple

from kfp import dsl

from components.ingest.component import ingest_dataset
from components.preflight.component import choose_parents
from components.train.component import make_variant
from pipelines.challenge import conclude_after, judge, roll_out
from pipelines.descriptions import described
from pipelines.steps import HOUR, MINUTE, configure, some

Outputs = NamedTuple("Outputs", [("version", str), ("decision", str)])  # noqa: UP014 - kfp reads this form


@dsl.pipeline(
    name="penstock-variant",
    display_name="Penstock: an 8-bit version, an ensemble, averaged weights",
    description="Makes a new version of published ones, evaluates it on their sealed test split and deploys it if it is good enough.",
)
@described
def variant_pipeline(
    versions: str = "champion",
    kind: str = "int8",
    store: str = "s3://penstock",
    name: str = "digits",
    environment: str = "dev",
    strategy: str = "quality",
    actor: str = "",
    reason: str = "",
    target: str = "local",
    namespace: str = "",
    variant: dict = {},  # noqa: B006 - kfp reads the default, nothing changes it
    policy: dict = {},  # noqa: B006
    serving: dict = {},  # noqa: B006
) -> Outputs:
    """Make a challenger of published versions, and let it through to production only if it is good.

    1. choose says which versions are meant, and refuses those that do not go together or whose dataset was not kept.
    2. ingest fetches that dataset version from the store, by its digest.
    3. make quantises, joins or averages, and calibrates on the training and validation splits.
    4. From here on it is a challenger as any other: evaluate (which also times it beside its parents and the champion), publish,
       gate, validate_serving and deploy or hold, conclude.
    """
    given = dict(locals())

    choose = choose_parents(**given)
    configure(choose, "Choose parents", timeout=10 * MINUTE)

    data = ingest_dataset(source=choose.outputs["source"], store=store)
    configure(data, "Ingest", timeout=1 * HOUR)

    options = some(given, "kind", "store", "name", "variant")
    make = make_variant(dataset=data.outputs["dataset"], versions=choose.outputs["versions"], **options)
    configure(make, "Make variant", timeout=6 * HOUR)

    publish, gate = judge(given, data.outputs["dataset"], make.outputs["model"])
    with dsl.ExitHandler(conclude_after(given), name="rollout"):
        roll_out(given, publish, gate)
    return Outputs(version=publish.outputs["Output"], decision=gate.outputs["Output"])
