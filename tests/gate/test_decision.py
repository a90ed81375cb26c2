import json
import re

from components.bundle.decision import Decision
from components.bundle.policy import Policy
from components.gate.decide import decide
from components.report.markdown import decision_markdown
from tests.gate.cases import champion, evaluation, good


def test_a_decision_survives_json() -> None:
    decision = decide(
        Policy(minimum_accuracy=0.9), good(champion=champion(3, 3, 360, 353)), environment="dev", version="v", evaluation_digest="d"
    )
    text = decision.model_dump_json()
    assert Decision.model_validate_json(text) == decision
    assert json.loads(text)["rules"][0] == {
        "rule": "minimum_accuracy",
        "outcome": "pass",
        "reason": "accuracy 0.9806 (353 of 360) meets the floor 0.9",
        "value": 353 / 360,
        "bound": 0.9,
        "shown": "0.9806",
        "remedy": "",
    }


def test_the_markdown_says_verdict_and_reasons() -> None:
    page = decision_markdown(decide(Policy(minimum_accuracy=0.995, minimum_class_recall=0.9), good(), environment="prod", version="v1"))
    assert page.startswith("# Hold\n\nfailed: minimum\\_accuracy\n")
    assert "| Environment | prod |" in page
    assert r"| ✗ fail | minimum\_accuracy | 0.9806 | 0.995 | accuracy 0.9806 (353 of 360) is below the floor 0.995 |" in page


def test_hostile_names_stay_text_in_their_cell() -> None:
    hostile = evaluation([[0, 30], [0, 30]], classes=["<script>alert(1)</script>|\n# x", "[a](b)"])
    decision = decide(Policy(minimum_class_recall=0.9), hostile, "force", "<b>|ann", "because\n\n# Promote")
    page = decision_markdown(decision)
    assert "<script" not in page
    assert "[a](" not in page
    assert page.count("\n# ") == 0
    rows = [line for line in page.splitlines() if line.startswith("| –")]
    assert len(rows) == len(decision.rules)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)  # those that are not escaped
    assert "&#" not in page  # Kubeflow's UI would show numbered entities as they are written


def test_the_ledger_keeps_verdict_reasons_and_policy() -> None:
    kept = decide(Policy(minimum_accuracy=0.995), good()).for_ledger()
    assert kept["verdict"] == "hold"
    assert kept["policy"] == {"minimum_accuracy": 0.995, "minimum_class_support": 1}
    assert any("0.9806" in reason for reason in kept["reasons"])
    json.dumps(kept, allow_nan=False)
