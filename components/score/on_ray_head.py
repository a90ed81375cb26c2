"""What the head of a RayJob's cluster runs: `python3 -m components.score.on_ray_head` reads its work from the environment."""

import os
import sys
import tempfile
from pathlib import Path

from components.classifier.errors import exit_code_of


def score_here() -> None:
    """Fetch the plan, score one shard of it on the Ray cluster that RAY_ADDRESS names, and put what was done in the store.

    Raises what `score_shard` raises, DataError without a plan, and StoreError.
    """
    from components.score.ray_job import RESULT, WORK, RayWork, fetch_plan
    from components.score.shard import score_shard
    from components.storage import open_store

    work = RayWork.model_validate_json(os.environ[WORK])
    store = open_store(work.store)
    with tempfile.TemporaryDirectory(prefix="penstock-plan-") as folder:
        plan = fetch_plan(store, work.folder, Path(folder) / "plan")
        store.replace(f"{work.folder}/{RESULT}", score_shard(plan, work.shard, work.gpus).to_json().encode())


if __name__ == "__main__":
    sys.exit(exit_code_of(score_here))
