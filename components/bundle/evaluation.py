"""What evaluation.json holds: strict JSON, every number finite or null, unknown fields refused.

A figure that is not defined (the recall of a class without test pictures, ROC with one class) is null, never 0 and never NaN.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.bundle.files import EVALUATION
from components.bundle.formats import Amount, Count, JsonFile, Share, Strict
from components.bundle.training import LearningCurves
from components.classifier.intervals import mcnemar

SCHEMA_VERSION = 1


class Proportion(Strict):
    """`correct` of `n` pictures, with the Wilson score interval (Wilson 1927) at `confidence_level`.

    `method` "wilson, groups": the Wilson interval for the effective sample size of the groups (see `Groups`).
    """

    value: Share
    correct: Count
    n: Annotated[int, Field(ge=1)]
    low: Share
    high: Share
    method: str = "wilson"
    confidence_level: Share = 0.95

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.correct > self.n or abs(self.value - self.correct / self.n) > 1e-12:
            raise ValueError(f"{self.value} is not {self.correct} of {self.n}")
        return self


class Groups(Strict):
    """Test pictures of `n` groups by `column`, such as patients; `effective`: their effective sample size in independent pictures."""

    column: str
    n: Annotated[int, Field(ge=1)]
    effective: Annotated[float, Field(gt=0)]


class ClassResult(Strict):
    """One class on the test split.

    `support` pictures carry the label, `predicted` were given it, `correct` both. Precision is null when nothing was given the
    label; recall, F1 and AUC are null when no picture carries it.
    """

    name: str
    support: Count
    predicted: Count
    correct: Count
    precision: Share | None
    recall: Share | None
    recall_low: Share | None
    recall_high: Share | None
    """95% Wilson interval of the recall; by groups, where the dataset has them."""
    effective: Annotated[float, Field(gt=0)] | None = None
    """Effective sample size of the recall, from this class' groups; null where the dataset has no groups."""
    f1: Share | None
    roc_auc: Share | None
    """This class against the rest; null also when every picture carries the label."""


class TopK(Strict):
    """Share of pictures whose label is among the `k` most probable classes."""

    k: Annotated[int, Field(ge=2)]
    accuracy: Share


class Confusion(Strict):
    """`count` pictures of class `label` were taken for `predicted`; `share` is of the label's pictures."""

    label: str
    predicted: str
    count: Annotated[int, Field(ge=1)]
    share: Share


class ReliabilityBin(Strict):
    """Pictures whose confidence lies in [low, high); confidence and accuracy are null when there are none."""

    low: Share
    high: Share
    n: Count
    confidence: Share | None
    accuracy: Share | None


class Calibration(Strict):
    """How far confidence is from accuracy: expected calibration error over equal-width bins (Guo et al. 2017).

    `ece_before` is that of the network's own softmax, `ece_after` that of the shipped probabilities, which temperature
    scaling, fitted on the validation split, has divided by `temperature`.
    """

    temperature: Annotated[float, Field(gt=0)]
    how: str = ""
    """How training found the temperature; empty for versions of release 0.1.0."""
    ece_before: Share
    ece_after: Share
    bins: list[ReliabilityBin]
    """Of the shipped probabilities."""
    bins_before: list[ReliabilityBin]


class Unfamiliar(Strict):
    """Of `n` test pictures, `count` look like nothing that the model was trained on; the threshold lets about `expected` do so."""

    count: Count
    n: Annotated[int, Field(ge=1)]
    share: Share
    low: Share
    high: Share
    """95% Wilson interval of the share."""
    expected: Share
    accuracy: Share | None
    """Of the unfamiliar pictures; null when there are none."""


class CoveragePoint(Strict):
    """With review below `threshold`: `coverage` is answered without a person, at `accuracy` (null when nothing is)."""

    threshold: Share
    n: Count
    coverage: Share
    accuracy: Share | None


class Slice(Strict):
    """The test pictures for which `column` is `value`."""

    column: str
    value: str
    accuracy: Proportion
    p_worse: Share | None
    """Fisher's exact test, one-sided, that the slice is worse than the other pictures; Holm-corrected over all slices.
    Null when there are no other pictures."""
    effective: Annotated[float, Field(gt=0)] | None = None
    """Effective sample size, from its groups; null where the dataset has no groups."""


class Mistake(Strict):
    """A picture that was taken for another class, with great confidence."""

    index: Count
    """Row of the test split."""
    file: str
    """Where the picture came from; empty when the dataset does not say."""
    label: str
    predicted: str
    confidence: Share
    label_probability: Share


class Latency(Strict):
    """Time to classify, on the machine that evaluated: picture to probabilities, without decoding or HTTP."""

    p50_ms: Amount
    p95_ms: Amount
    """Of `n` single pictures, one at a time."""
    n: Annotated[int, Field(ge=1)]
    batch_images_per_second: Amount
    batch_size: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    device: str


class PairedClass(Strict):
    """The champion on one class beside the challenger, on the same pictures."""

    name: str
    support: Count
    recall: Share | None
    """The champion's; null when no test picture carries the label."""
    only_challenger: Count
    only_champion: Count


class Paired(Strict):
    """Champion and challenger on the same `n` pictures, by who was right: the counts of McNemar's test."""

    n: Annotated[int, Field(ge=1)]
    both_correct: Count
    only_challenger: Count
    only_champion: Count
    neither: Count
    accuracy: Proportion
    """The champion's own, as are the figures below."""
    balanced_accuracy: Share
    macro_f1: Share
    log_loss: Amount
    brier: Amount
    ece: Share
    mcnemar_p: Share
    """Two-sided exact McNemar test: the binomial test of the discordant pairs against one half."""
    difference: Annotated[float, Field(ge=-1, le=1)]
    """Challenger's accuracy minus champion's."""
    difference_low: Annotated[float, Field(ge=-1, le=1)]
    difference_high: Annotated[float, Field(ge=-1, le=1)]
    """95% score interval for a paired difference (Tango 1998)."""
    effective: Annotated[float, Field(gt=0)] | None = None
    """Effective sample size of the difference, from the groups; null where the dataset has no groups."""
    per_class: list[PairedClass]

    @property
    def scale(self) -> float:
        """What counts are multiplied with before they are tested: 1, or the share of effective pictures."""
        return 1.0 if self.effective is None else self.effective / self.n

    def p_value(self, alternative: str) -> float:
        """One-sided exact McNemar test that the challenger is worse ("less") or better ("greater"); of effective pictures."""
        return mcnemar(self.only_challenger * self.scale, self.only_champion * self.scale, alternative)

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.both_correct + self.only_challenger + self.only_champion + self.neither != self.n:
            raise ValueError("the four counts do not add up to n")
        if self.accuracy.correct != self.both_correct + self.only_champion or self.accuracy.n != self.n:
            raise ValueError("the champion's accuracy does not follow from the four counts")
        return self


class Champion(Strict):
    """The version that serves, beside this one. `paired` is null, with the `reason`, where they cannot be compared."""

    version: str
    classes_equal: bool
    """Same names in the same order."""
    shape_equal: bool
    same_images: bool
    """Scored on the very pictures of `test_digest`; false where it could not be scored."""
    dataset_digest: str
    """What the champion was trained on; empty when it could not be read."""
    reason: str
    """Why there is no comparison; empty when there is one."""
    paired: Paired | None

    @model_validator(mode="after")
    def _reason_or_paired(self) -> Self:
        if (self.paired is None) != bool(self.reason):
            raise ValueError("either a comparison or the reason why there is none")
        if self.paired is not None and not (self.classes_equal and self.shape_equal and self.same_images):
            raise ValueError("a comparison needs the same classes, shape and pictures")
        return self


Role = Literal["this model", "parent", "champion", "parent and champion"]


class Measured(Strict):
    """One model: its accuracy with the 95% interval, and the median time per picture, alone and in a batch."""

    version: str
    """Empty for the model that is evaluated: it has no version yet."""
    role: Role
    made: str
    """Its architecture, as config.json says it."""
    accuracy: Share
    low: Share
    high: Share
    size_bytes: Annotated[int, Field(ge=1)]
    """Of model.onnx."""
    one_ms: Amount
    batch_ms: Amount
    """Per picture, in batches of `Tradeoff.batch`."""


class Tradeoff(Strict):
    """What a variant gains and costs beside its parents and the champion, each measured in turn on the machine that evaluated.

    From picture to probabilities; no rule of the gate reads it.
    """

    models: Annotated[list[Measured], Field(min_length=1)]
    batch: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    runs: Annotated[int, Field(ge=1)]
    """Of which each median is."""
    hardware: str


class Evaluation(Strict, JsonFile):
    """All that evaluation.json holds: the numbers on the sealed test split, all that the gate and the report need."""

    FILE: ClassVar[str] = EVALUATION
    schema_version: int = SCHEMA_VERSION
    name: str
    """The model's."""
    architecture: str
    trained_at: str
    evaluated_at: str
    """UTC, ISO 8601."""
    code_version: str
    dataset_digest: str
    """Of the dataset version that holds the test split."""
    trained_on_digest: str
    """Of the dataset version that the model was trained on."""
    source: str
    """Where the dataset came from."""
    test_digest: str
    """SHA-256 of the class names and the test split's labels and pixels."""
    n: Annotated[int, Field(ge=1)]
    classes: Annotated[list[str], Field(min_length=2)]
    accuracy: Proportion
    groups: Groups | None = None
    """Null where the dataset has no groups."""
    balanced_accuracy: Share
    macro_f1: Share
    """Mean F1 of the classes that have test pictures."""
    weighted_f1: Share
    log_loss: Amount
    """Mean negative logarithm (natural) of the label's probability."""
    brier: Amount
    """As scikit-learn: 0 to 1 for two classes, 0 to 2 for more."""
    roc_auc: Share | None
    """Mean over the classes of one against the rest; null when a single class is present."""
    top_k: list[TopK]
    per_class: list[ClassResult]
    confusion_matrix: list[list[Count]]
    """Row: label, column: prediction, in the order of `classes`."""
    largest_confusions: Annotated[list[Confusion], Field(max_length=10)]
    calibration: Calibration
    unfamiliar: Unfamiliar | None = None
    """Null for a model that cannot say it."""
    coverage: list[CoveragePoint]
    slices: list[Slice]
    mistakes: list[Mistake]
    latency: Latency
    size_bytes: Annotated[int, Field(ge=1)]
    """Of model.onnx."""
    champion: Champion | None
    """Null when nothing serves yet."""
    warnings: list[str]
    """What a reader must know, one line each: classes without test pictures, slices left out and so on."""
    training: LearningCurves | None = None
    """How the model was trained; null where that is not known."""
    tradeoff: Tradeoff | None = None
    """Accuracy against latency; null for a model that was not made of other versions."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if [result.name for result in self.per_class] != self.classes:
            raise ValueError("per_class does not follow the order of classes")
        if [len(row) for row in self.confusion_matrix] != [len(self.classes)] * len(self.classes):
            raise ValueError("the confusion matrix is not square in the number of classes")
        if self.accuracy.n != self.n or sum(map(sum, self.confusion_matrix)) != self.n:
            raise ValueError("accuracy, confusion matrix and n do not agree")
        if self.champion is not None and self.champion.paired is not None and self.champion.paired.n != self.n:
            raise ValueError("the champion was scored on another number of pictures")
        return self


class _ClassNames(JsonFile):
    FILE: ClassVar[str] = EVALUATION
    classes: list[str]


def load_class_names(directory: str | Path) -> list[str]:
    """Read only the class names of evaluation.json, in the evaluation's order, whatever release wrote the rest.

    Raises EvaluationError when there are none.
    """
    return _ClassNames.load(directory).classes
