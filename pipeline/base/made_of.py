"""What a result is made of, as plain values whose form outlives new keys."""

from __future__ import annotations

import dataclasses
from typing import Any


def added(default: Any) -> Any:
    """A dataclass field that came after the first records: it counts only where it differs from its default.

    So the results of before stay valid when a key is added. The first keys always count, so that a changed default
    is a changed result.
    """
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata={"added": True})
    return dataclasses.field(default=default, metadata={"added": True})


def made_of(value: Any) -> Any:
    """A dataclass as nested dictionaries, without the :func:`added` fields that have their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field for field in dataclasses.fields(value) if not _left_out(field, getattr(value, field.name)))
        return {field.name: made_of(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: made_of(item) for key, item in value.items()}
    return [made_of(item) for item in value] if isinstance(value, list | tuple) else value


def _left_out(field: dataclasses.Field[Any], value: Any) -> bool:
    if not field.metadata.get("added"):
        return False
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(value == default)
