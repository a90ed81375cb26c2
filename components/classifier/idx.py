"""How an IDX file begins: two zero bytes, the type of its values, the number of dimensions; MNIST's format.

Ingest reads such files with their labels, scoring reads them in pieces; what the bytes mean is said here for both.
"""

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""numpy's names of the value types, by the header's third byte."""


def begins_like_idx(head: bytes) -> bool:
    """Say whether bytes begin like an IDX file of 1 to 4 dimensions."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in TYPES and 1 <= head[3] <= 4
