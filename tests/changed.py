"""Studies are frozen: a test that wants other keys makes another study."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

Section = TypeVar("Section")


def changed(section: Section, keys: dict[str, Any]) -> Section:
    """``section`` with other values of some keys, such as ``pretrain.tokens``; checked by nothing."""
    for key, value in keys.items():
        first, _, rest = key.partition(".")
        old = section[first] if isinstance(section, dict) else getattr(section, first)
        new = changed(old, {rest: value}) if rest else value
        section = section | {first: new} if isinstance(section, dict) else dataclasses.replace(section, **{first: new})  # type: ignore[type-var, assignment]
    return section
