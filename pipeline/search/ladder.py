"""The choices of a tuned key as rungs of a ladder, which goes on beyond either end by the ratio that it has there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.study.recipe_space import Point, Value


def rung(choices: Sequence[Any], position: int) -> Value | None:
    """The choice at a position from 0; below 0 and past the last, what the ratio at that end leads to.

    Three digits of it, a whole number where the choices are. ``None`` where there is no ratio, or nothing new.
    """
    if 0 <= position < len(choices):
        value: Value = choices[position]
        return value
    steps = -position if position < 0 else position - len(choices) + 1
    end, *inner = choices[:2] if position < 0 else choices[:-3:-1]
    if not inner or min(end, *inner) <= 0:
        return None
    beyond = end * (end / inner[0]) ** steps
    if type(end) is not int:
        return float(f"{beyond:.3g}")
    return round(beyond) if round(beyond) not in (0, end) else None


def open_sides(best: Point, tried: Sequence[Point], key: str) -> list[int]:
    """The sides, -1 and 1, on which nothing beyond the best value was tried."""
    values: list[Any] = [point[key] for point in tried if key in point]
    return [side for side, end in ((-1, min(values)), (1, max(values))) if best[key] == end]
