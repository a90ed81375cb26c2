"""One whole run of batch scoring, for the benchmark, without what only the benchmark imports."""

from pathlib import Path

from components.score.merge import merge
from components.score.plan_step import make_plan
from components.score.shard import score_shard
from components.settings.scoring import ScoringSettings


def run(store: str, version: str, source: str, place: str, engine: str = "local") -> None:
    """Plan, score and merge in this process; the output lies below the folder `place`."""
    folder = Path(place)
    plan = make_plan(
        folder / "plan",
        store=store,
        name="digits",
        version=version,
        input=source,
        output=str(folder / "output"),
        settings=ScoringSettings.read({"engine": engine}),
        shards=1,
    )
    results = [score_shard(plan, shard).to_json() for shard in plan.shards()]
    merge(plan, results, folder / "predictions")
