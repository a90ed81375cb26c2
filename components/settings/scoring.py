"""What a user chooses for one scoring run."""

from dataclasses import dataclass

from components.classifier.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ScoringSettings:
    """Choices of one run; refused with UsageError when they cannot work."""

    review_threshold: float = 0.8
    """Answers with less confidence than this are marked for review."""
    batch_size: int = 64
    """Pictures a call of the model: on CPUs more is slower, a GPU wants 256 or more."""
    probabilities: bool = False
    """Write the probability of every class, not only of the winner."""
    image_column: str = ""
    """Which column of a Parquet file holds the pictures, where several may."""
    device: str = "auto"
    workers: int = 0
    """Decoding threads; 0 takes one a CPU, and more for objects of a store."""

    def __post_init__(self) -> None:
        if not 0 <= self.review_threshold <= 1:
            raise UsageError(f"review_threshold must be between 0 and 1, got {self.review_threshold}")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.workers < 0:
            raise UsageError(f"workers must be 0 (one a CPU) or more, got {self.workers}")
        if self.device not in DEVICES:
            raise UsageError(f"unknown device {self.device!r}; use {', '.join(DEVICES)}")
