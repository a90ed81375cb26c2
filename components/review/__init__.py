"""The review queue: pictures predicted with low confidence and a random audit sample, and the labels that people give them."""

from components.review.queue import Reason, ReviewEntry, ReviewQueue, drawn_for_audit

__all__ = ["Reason", "ReviewEntry", "ReviewQueue", "drawn_for_audit"]
