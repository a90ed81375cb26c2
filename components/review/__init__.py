"""The review queue: pictures that the champion is unsure of and a random audit sample, the labels people give them, and what follows."""

from components.review.audit import drawn_for_audit
from components.review.queue import Reason, ReviewEntry, ReviewQueue

__all__ = ["Reason", "ReviewEntry", "ReviewQueue", "drawn_for_audit"]
