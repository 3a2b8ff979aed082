"""JSON into dataclasses, strictly: a value of another type is refused, not carried along until something breaks."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, get_args, get_origin, get_type_hints


def build(hint: Any, value: Any) -> Any:
    """A value of type ``hint`` from JSON. Raises ``TypeError`` or ``KeyError`` where it is of another form.

    A whole number may stand for a float.
    """
    if get_origin(hint) is types.UnionType:
        options = get_args(hint)
        return build(next((option for option in options if option is type(value)), options[0]), value)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{name: build(hints[name], item) for name, item in _of(dict, value).items()})  # type: ignore[operator]
    if get_origin(hint) is dict:
        return {name: build(get_args(hint)[1], item) for name, item in _of(dict, value).items()}
    if get_origin(hint) is list:
        return [build(get_args(hint)[0], item) for item in _of(list, value)]
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    return _of(hint, value)


def _of(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{ascii(value)[:60]} is no {kind.__name__}")
    return value
