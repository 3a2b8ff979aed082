"""How a check fails: one line that names the key, its value and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pipeline.errors import UserError


def fail(key: str, value: object, right: str) -> None:
    raise UserError(f"{key}: {value!r} is wrong; {right}")


def require(condition: bool, key: str, value: object, right: str) -> None:
    if not condition:
        fail(key, value, right)


def choice(key: str, value: str, options: Iterable[str]) -> None:
    options = list(options)
    close = difflib.get_close_matches(value, options, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(options) or '(none defined)'}"
    require(value in options, key, value, hint)


def positive(key: str, value: int | float | None) -> None:
    require(value is None or value > 0, key, value, "it must be greater than 0")


def all_positive(key: str, values: object, names: Iterable[str]) -> None:
    for name in names:
        positive(f"{key}.{name}", getattr(values, name))
