"""Reads values out of YAML that may have any shape: what is missing or of another type is empty."""

from typing import Any


def at(value: Any, *keys: str | int) -> Any:
    """The value below these keys, or None."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def mapping(value: Any, *keys: str | int) -> dict[str, Any]:
    """The mapping below these keys, without keys that are not text; empty when there is none."""
    found = at(value, *keys)
    return {key: it for key, it in found.items() if isinstance(key, str)} if isinstance(found, dict) else {}


def sequence(value: Any, *keys: str | int) -> list[Any]:
    """The list below these keys; empty when there is none."""
    found = at(value, *keys)
    return found if isinstance(found, list) else []


def text(value: Any, *keys: str | int) -> str:
    """The text below these keys; empty when there is none."""
    found = at(value, *keys)
    return found if isinstance(found, str) else ""


def number(value: Any, *keys: str | int) -> int | None:
    """The whole number below these keys, or None; a text of digits counts."""
    found = at(value, *keys)
    if isinstance(found, bool):
        return None
    if isinstance(found, int):
        return found
    return int(found) if isinstance(found, str) and found.isascii() and found.isdigit() else None


def is_template(value: str) -> bool:
    """Whether a tool replaces part of this text before it is used: {{ … }}, ${ … } or $( … )."""
    return any(mark in value for mark in ("{{", "${", "$("))
