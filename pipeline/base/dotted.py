"""Nested mappings under dotted keys, such as ``initialization.std``."""

from __future__ import annotations

from typing import Any


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys, without those that are ``None``."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flattened |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            flattened[f"{prefix}{key}"] = value
    return flattened
