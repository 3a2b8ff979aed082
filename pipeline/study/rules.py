"""How a check fails: one line that names the key, its value and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pipeline.base.errors import UserError


def require(condition: bool, key: str, value: object, right: str) -> None:
    """Raise :class:`UserError` naming key, value and what would be right, unless ``condition``."""
    if not condition:
        raise UserError(f"{key}: {shown(value)} is wrong; {right}")


def choice(key: str, value: str, options: Iterable[str]) -> None:
    """Raise :class:`UserError` unless the value is one of ``options``; the nearest one is suggested."""
    options = list(options)
    if value not in options:
        require(False, key, value, remedy(value, options))


def positive(key: str, value: int | float | None) -> None:
    """Raise :class:`UserError` unless the value is greater than 0, or ``None``."""
    require(value is None or value > 0, key, value, "it must be greater than 0")


def all_positive(key: str, values: object, names: Iterable[str]) -> None:
    """Raise :class:`UserError` unless these attributes of a section are greater than 0, or ``None``."""
    for name in names:
        positive(f"{key}.{name}", getattr(values, name))


def divides(key: str, value: int, named: str, whole: int) -> None:
    """Raise :class:`UserError` unless the value divides ``whole``, which ``named`` says; the nearest one is told."""
    if whole % value:
        near = min((n for n in range(1, 10_001) if whole % n == 0), key=lambda n: abs(n - value))
        require(False, key, value, f"it must divide {named} ({whole}), as {near} does")


def shown(value: object) -> str:
    """The value as a message quotes it: one line, not too long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text):,} characters)"


def remedy(value: str, options: list[str]) -> str:
    """The option nearest to a wrong value, or all of them where none is near."""
    return suggestion(value, options) or f"it is one of {_listed(options)}"


def suggestion(name: str, options: Iterable[str]) -> str | None:
    """``did you mean ...?`` with the option nearest to a name; ``None`` where none is near."""
    close = difflib.get_close_matches(name[:100], list(options), n=1)
    return f"did you mean {close[0]!r}?" if close else None


def _listed(options: list[str], most: int = 20) -> str:
    more = f", ... ({len(options)} in all)" if len(options) > most else ""
    return ", ".join(options[:most]) + more or "(none defined)"
