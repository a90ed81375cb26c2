"""What a deployment is asked to do, whatever the target, and what of it the ledger forbids or already holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from components.bundle.decision import Decision
from components.bundle.environment import Deployment
from components.classifier.errors import IntegrityError, RolloutError, UsageError
from components.registry import Record
from components.registry.ledger import champion_of, deployments, draft_record, refuse_downgrade
from components.registry.record import Action, Strategy


class Overtaken(RolloutError):
    """Another version came to serve than the one that the gate compared with: a result that is recorded as a hold, not a failure."""


PREVIOUS = "previous"
"""Asks for the version before the champion, whichever that is."""


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
    """How a cluster serves it: the fields of settings.serving.KServeSettings."""
    predictor: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the predictor on a cluster."""
    asked: str = ""
    """What the person asked for: a version's name, or `previous`, which must still be the same version when it is deployed."""
    rules: Deployment = field(default_factory=Deployment)
    """What the environment allows."""

    def check(self) -> None:
        """Raise UsageError for a request that is not allowed: without the gate's decision, or against it."""
        strategies = get_args(Strategy)
        if self.strategy not in strategies:
            raise UsageError(f"unknown strategy {self.strategy!r}; use {', '.join(strategies)}")
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
            allowed = "it can only be deployed by force or manually, where the environment allows that"
            raise UsageError(f"the gate held version {self.version} ({self.decision.summary}); {allowed}")

    def recorded(self, records: list[Record]) -> bool:
        """Say whether this run's deployment is recorded: a repeated step must not undo what others did since."""
        mine = [record for record in records if self.run and record.run == self.run]
        return any(record.action in {"deployed", "rolled_back"} and record.version == self.version for record in mine)

    def refuse_stale(self, records: list[Record]) -> None:
        """Raise when the ledger has moved on since what the request rests on.

        Overtaken, for strategy quality: another version serves than the gate compared with or, where keys are configured, a newer one.
        RolloutError, for `previous`: going back leads elsewhere now.
        """
        champion = champion_of(records)
        if self.strategy == "quality" and self.decision is not None and champion != self.decision.champion:
            compared = self.decision.champion or "nothing"
            raise Overtaken(
                f"overtaken by {champion or 'a rollback to nothing'}: the gate compared {self.version} with {compared}; "
                "run the pipeline again to compare with what serves"
            )
        try:
            refuse_downgrade(champion, self.version, self.draft())
        except IntegrityError as older:
            raise Overtaken(str(older)) from older
        if self.asked == PREVIOUS:
            stack = deployments(records)
            if stack[-2:-1] != [self.version]:
                raise RolloutError(
                    f"{champion or 'nothing'} serves now and going back would bring {stack[-2] if len(stack) > 1 else 'nothing'}, "
                    f"not {self.version}; look at the history, then run it again"
                )

    def draft(self) -> Record:
        """Return the record of the deployment."""
        return self._draft("rolled_back" if self.strategy == "rollback" else "deployed", self.version, self.strategy, self.reason)

    def draft_hold(self, reason: str) -> Record:
        """Return the record of a version that passed the gate and was overtaken; the champion goes on serving."""
        return self._draft("held", self.version, self.strategy, reason)

    def draft_failure(self, reason: str) -> Record:
        """Return the record of a failed deployment; the champion goes on serving."""
        return self._draft("failed", self.version, self.strategy, reason)

    def draft_return(self, version: str, reason: str) -> Record:
        """Return the record of going back to `version` after the request's version failed for `reason`."""
        return self._draft("rolled_back", version, "rollback", f"{self.version} failed: {reason}", decided=False)

    def _draft(self, action: Action, version: str, strategy: str, reason: str, *, decided: bool = True) -> Record:
        return draft_record(
            action,
            version,
            strategy,
            decision=self.decision if decided else None,
            target=self.target,
            environment=self.environment,
            actor=self.actor,
            reason=reason,
            run=self.run,
        )
