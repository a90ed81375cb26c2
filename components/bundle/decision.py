"""The gate's decision, rule by rule, and how it travels to later steps."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.classifier.errors import IntegrityError, UsageError, near

STRATEGIES = ("quality", "force")
DECISION_KEY = "decision_json"
"""The decision artifact's metadata key that carries the whole decision to the steps after the gate."""

Outcome = Literal["pass", "fail", "insufficient", "skipped"]
"""`insufficient`: too few test pictures to say. `skipped`: no champion to compare with, or skipped by `force`."""
Verdict = Literal["promote", "hold", "insufficient_data"]

SIGNS: dict[Outcome, str] = {"pass": "✓", "fail": "✗", "insufficient": "?", "skipped": "–"}


class RuleResult(BaseModel):
    """One rule's outcome; `value` and `bound` are null where there is none, `shown` is the value rounded for people.

    `shown` has as many digits as it takes to lie on the same side of `bound` as `value`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    rule: str
    outcome: Outcome
    reason: str
    value: float | None = None
    bound: float | None = None
    shown: str = ""
    remedy: str = ""
    """What would let the rule pass; empty where it does not hold the model."""

    @property
    def line(self) -> str:
        """The rule, its outcome and the reason in one line."""
        return f"{self.rule}: {self.outcome}: {self.reason}"

    @classmethod
    def parse(cls, line: str) -> "RuleResult":
        """Read what `line` wrote; raises ValueError for another text."""
        rule, outcome, reason = line.split(": ", 2)
        return cls.model_validate({"rule": rule, "outcome": outcome, "reason": reason})


class Decision(BaseModel):
    """Whether a version may serve, by which rules, and who asked for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    verdict: Verdict
    deploy: bool
    summary: str
    """The verdict's reason in one sentence."""
    strategy: str
    environment: str
    version: str
    champion: str
    """The version that the evaluation compares with; empty when nothing served."""
    evaluation_digest: str
    """SHA-256 of evaluation.json; empty when unknown."""
    test_digest: str = ""
    """Of the test split that it was judged on; empty when unknown."""
    policy: dict[str, Any]
    """The rules that were set."""
    rules: list[RuleResult]
    actor: str
    reason: str

    @property
    def reasons(self) -> list[str]:
        """One line for each rule: its name, outcome and reason."""
        return [rule.line for rule in self.rules]

    @property
    def remedies(self) -> list[str]:
        """What would change a hold, one line for each rule that can say it."""
        return [f"{rule.rule}: {rule.remedy}" for rule in self.rules if rule.remedy]

    def for_ledger(self) -> dict[str, Any]:
        """What a deployment record keeps: the verdict, the reasons, and the policy that they follow from."""
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "reasons": self.reasons,
            "policy": self.policy,
            "compared_with": self.champion,
            "test_digest": self.test_digest,
        }

    @classmethod
    def from_ledger(cls, kept: Mapping[str, Any], **fields: str) -> "Decision":
        """Return the decision that a record keeps; its rules have their reasons, but no values and bounds.

        `fields`: what the record says beside it: strategy, environment, version, evaluation_digest, actor and reason.

        Raises IntegrityError for a record that does not keep one.
        """
        try:
            verdict = kept["verdict"]
            return cls(
                verdict=verdict,
                deploy=verdict == "promote",
                summary=kept["summary"],
                champion=kept["compared_with"],
                test_digest=kept.get("test_digest", ""),
                policy=kept["policy"],
                rules=[RuleResult.parse(line) for line in kept["reasons"]],
                **fields,
            )
        except (KeyError, ValueError) as error:
            raise IntegrityError(f"the record about {fields['version']} does not keep the gate's decision; run the gate again") from error

    def for_artifact(self) -> dict[str, Any]:
        """The decision artifact's metadata: the verdict and reasons for people, and the whole for the steps after the gate."""
        metadata = {"verdict": self.verdict, "summary": self.summary, "reasons": self.reasons}
        return {**metadata, DECISION_KEY: self.model_dump_json()}


HEADINGS: dict[Verdict, str] = {"promote": "Promote", "hold": "Hold", "insufficient_data": "Hold: insufficient data"}


def read_decision(metadata: Mapping[str, Any], version: str) -> Decision:
    """Read the decision that the gate left in an artifact's metadata; raises IntegrityError when it is not about `version`."""
    text = metadata.get(DECISION_KEY)
    if not isinstance(text, str):
        raise IntegrityError(f"the decision artifact carries no {DECISION_KEY}; run the gate again")
    decision = Decision.model_validate_json(text)
    if decision.version != version:
        raise IntegrityError(f"the decision is about version {decision.version}, not {version}; run the gate again")
    return decision


def check_strategy(strategy: str, actor: str, reason: str) -> None:
    """Raise UsageError for a strategy that the gate does not know, and for force without an actor and a reason."""
    if strategy == "manual":
        raise UsageError("strategy 'manual' deploys a version that you name: use the deployment pipeline; the gate takes quality or force")
    if strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy {strategy!r}{near(strategy, STRATEGIES)}; use {' or '.join(STRATEGIES)}")
    missing = [name for name, value in (("actor", actor), ("reason", reason)) if not value.strip()]
    if strategy == "force" and missing:
        raise UsageError(f"strategy 'force' needs {' and '.join(missing)}: who deploys despite the policy, and why; both are recorded")
