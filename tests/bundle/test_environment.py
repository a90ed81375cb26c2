from pathlib import Path

import pytest

from components.bundle.environment import environment_names, load_environment
from components.classifier.errors import PenstockError, PolicyError, UsageError
from components.gate.decide import decide
from tests.gate.cases import champion, evaluation, good


def test_dev_staging_and_prod_are_there() -> None:
    assert environment_names() == ["dev", "prod", "staging"]
    for name in environment_names():
        environment = load_environment(name)
        assert environment.name == name
        assert 0 < environment.serving.review_threshold < 1


@pytest.mark.parametrize(
    ("case", "judged", "dev", "staging", "prod"),
    [
        ("first model on digits", good(360, 353), "promote", "promote", "promote"),
        ("second on digits, as good", good(360, 352, champion(3, 4, 360, 352)), "promote", "promote", "insufficient_data"),
        ("second on digits, the same answers", good(360, 353, champion(0, 0, 360, 353)), "promote", "promote", "insufficient_data"),
        ("second on digits, worse", good(360, 345, champion(1, 10, 360, 345)), "hold", "hold", "hold"),
        ("first model on MNIST", good(10_000, 9915), "promote", "promote", "promote"),
        ("second on MNIST, as good", good(10_000, 9915, champion(40, 45, 10_000, 9915)), "promote", "promote", "promote"),
        ("second on MNIST, a point worse", good(10_000, 9815, champion(30, 130, 10_000, 9815)), "hold", "promote", "hold"),
        ("ten pictures", good(10, 10), "promote", "insufficient_data", "insufficient_data"),
        ("one class broken", evaluation([[950, 0], [50, 0]]), "hold", "hold", "hold"),
        ("poor", good(360, 250), "hold", "hold", "hold"),
    ],
)
def test_dev_is_lenient_and_prod_is_strict(case: str, judged: object, dev: str, staging: str, prod: str) -> None:
    for name, verdict in (("dev", dev), ("staging", staging), ("prod", prod)):
        decision = decide(load_environment(name).policy, judged)  # type: ignore[arg-type]
        assert decision.verdict == verdict, (case, name, decision.reasons)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_file_of_ones_own_is_an_environment(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "policy:\n  minimum_accuracy: 2e-05\nserving: {review_threshold: 0.7}\n")
    environment = load_environment(path)
    assert (environment.name, environment.policy.minimum_accuracy, environment.serving.review_threshold) == ("mine", 0.00002, 0.7)


def test_an_environment_without_rules_is_read_and_promotes_nothing(tmp_path: Path) -> None:
    for text in ("policy:\nserving:\n", "policy: {}\n", "serving: {}\n"):
        assert not decide(load_environment(write(tmp_path / "e.yaml", text)).policy, good()).deploy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy:\n  minimum_accuracy: 99\n", "between 0 and 1"),
        ("policy:\n  minimum_acuracy: 0.9\n", "did you mean 'minimum_accuracy'"),
        ("policy:\n  minimum_accuracy: 0.9\n  minimum_accuracy: 0.1\n", "minimum_accuracy is set twice"),
        ("policy:\n  class_recall_floors: {7: 0.5, 3: 0.99}\n", 'the name 7 is not text to YAML; write it in quotes: "7"'),
        ("policy:\n  class_recall_floors: {no: 0.5, off: 0.9}\n", 'the name no is not text to YAML; write it in quotes: "no"'),
        ("policy: [0.9]\n", "a policy is a table"),
        ("serving: {review_treshold: 0.9}\n", "serving: review_treshold"),
        ("serving: {review_threshold: 90}\n", "90 must be between 0 and 1"),
        ("serving: {latency_budget_ms: -1}\n", "-1 must be 0 or more"),
        ("polcy: {}\n", "unknown polcy"),
        ("", "tables policy, deployment, serving"),
        ("- a\n", "tables policy, deployment, serving"),
        ("policy: {\n", "not valid YAML"),
        ("policy: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as error:
        load_environment(write(tmp_path / "mine.yaml", text))
    assert "mine.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("prd", "did you mean 'prod'"), ("test", "there are dev, prod, staging"), ("no/such.yaml", "cannot be read"), ("", "dev, prod")],
)
def test_an_unknown_environment_is_told_which_there_are(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_environment(name)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PenstockError, match=r"e\.yaml"):
        load_environment(str(tmp_path / "e.yaml"))
    with pytest.raises(UsageError):
        load_environment(str(tmp_path) + "/")
