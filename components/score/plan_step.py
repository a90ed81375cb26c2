"""The plan step: settle the output, look through the input, cut it into pieces."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from components.classifier.errors import UsageError
from components.integrations.observe import missing
from components.readers.places import local_path
from components.readers.records import Reading
from components.score.classify_inputs import classify_inputs, refuse_output_in_input
from components.score.merge import committed
from components.score.model import Model
from components.score.output import SUMMARY, Output
from components.score.plan import Plan, write_plan
from components.settings.scoring import ScoringSettings, check_engine, check_pods, check_shards
from components.storage import open_store

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, and all that read its folders, call a column without a value there."""


def make_plan(
    folder: Path,
    *,
    store: str,
    name: str,
    version: str,
    input: str,
    output: str,
    settings: ScoringSettings,
    shards: int = 0,
    gpus: str = "0",
) -> Plan:
    """Plan one run; `output` "" means `scores/NAME/…` in the model store, one folder per input and version.

    Raises UsageError, also for an engine that is not installed, DataError when nothing is there or a single file cannot be scored, and
    what stores raise.
    """
    if not input.strip():
        raise UsageError("no input is given; name a file, a folder or s3://bucket/prefix")
    for warning in missing():
        print(warning)
    check_engine(settings.engine)
    check_pods(settings, store, input, output, gpus)
    check_shards(shards)
    output = (output or f"{store.rstrip('/')}/scores/{name}/{version}-{hashlib.sha256(input.encode()).hexdigest()[:8]}").rstrip("/")
    refuse_output_in_input(input, output)
    output = open_store(output).url
    Output(output).manifest()  # a store that does not answer is known before the work
    if "://" not in input and local_path(input).exists():
        input = str(local_path(input).absolute())
    model = Model(store, name, version)
    with tempfile.TemporaryDirectory(prefix="penstock-plan-") as scratch:
        config = model.config(Path(scratch) / "model")
        if settings.partition_by == "label" and NO_VALUE in config.classes:
            raise UsageError(f"class {NO_VALUE} is what no label is called in the names of folders; leave partition_by out")
        with model.open_input(input) as source:
            reading = Reading(config.input.spec, settings.image_column, settings.names)
            found = classify_inputs(source, reading, Path(scratch) / "found")
        about: dict[str, Any] = {"store": store, "name": name, "version": version, "input": input, "output": output}
        about |= {"classes": config.classes, "familiarity": config.familiarity is not None}
        return write_plan(folder, about, settings, found.sources, found.passed_over, found.refused, shards)


def is_unchanged(plan: Plan) -> bool:
    """Say whether the output is that of the same plan already, which is printed; its summary is then copied to the plan's folder.

    Raises what the run raised that wrote it, where not one input could be scored, and IntegrityError for files that were changed since.
    """
    if not Output(plan.output).is_complete(plan):
        return False
    with tempfile.TemporaryDirectory(prefix="penstock-plan-") as scratch:
        committed(plan, Path(scratch))
        shutil.copyfile(Path(scratch) / SUMMARY, plan.folder / SUMMARY)
    print(f"note: {plan.output} holds the scores of this input by {plan.version} already, nothing has changed: nothing is scored")
    return True
