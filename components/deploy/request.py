"""What a deployment is asked to do, whatever the target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.bundle.decision import Decision
from components.classifier.errors import UsageError

STRATEGIES = ("quality", "manual", "force", "rollback")


@dataclass(frozen=True)
class DeployRequest:
    """One version to deploy; `decision` is the gate's, None where a person names the version (manual) or goes back (rollback)."""

    version: str
    strategy: str
    decision: Decision | None = None
    environment: str = ""
    actor: str = ""
    reason: str = ""
    target: str = "local"
    namespace: str = ""
    run: str = ""
    serving: Mapping[str, Any] = field(default_factory=dict)
    """How a cluster serves it: the fields of settings.KServeSettings."""
    predictor: Mapping[str, str] = field(default_factory=dict)
    """Variables of the predictor on a cluster."""

    def check(self) -> None:
        """Raise UsageError for a request that nobody may make: not decided, or decided otherwise."""
        if self.strategy not in STRATEGIES:
            raise UsageError(f"unknown strategy {self.strategy!r}; use {', '.join(STRATEGIES)}")
        missing = [name for name in ("actor", "reason") if not getattr(self, name).strip()]
        if self.strategy != "quality" and missing:
            raise UsageError(f"strategy {self.strategy!r} needs {' and '.join(missing)}: who deploys, and why; both are recorded")
        if self.strategy in {"manual", "rollback"}:
            return
        if self.decision is None:
            raise UsageError(f"strategy {self.strategy!r} needs the gate's decision; run the gate first")
        if self.decision.version != self.version:
            raise UsageError(f"the decision is about version {self.decision.version}, not {self.version}; run the gate again")
        if self.decision.strategy != self.strategy:
            raise UsageError(f"the gate decided with strategy {self.decision.strategy!r}, not {self.strategy!r}; run the gate again")
        if not self.decision.deploy:
            raise UsageError(
                f"the gate held version {self.version} ({self.decision.summary}); it can only be deployed by force or manually"
            )
