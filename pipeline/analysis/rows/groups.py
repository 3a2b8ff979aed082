"""Which points share a front, and whose fronts are compared at equal loss. The one place that says so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from pipeline.analysis.rows.families import GENERATE, ORDER
from pipeline.analysis.rows.points import Point, Row
from pipeline.results.records import Baseline, SettingResult

Members = dict[str, list[Point]]


def by_family(points: Iterable[Point]) -> Members:
    """The points of each family, in the families' order."""
    families: Members = {}
    for point in sorted(points, key=lambda point: ORDER.index(point.family)):
        families.setdefault(point.family, []).append(point)
    return families


def contenders(points: Iterable[Point]) -> Members:
    """What is compared with vanilla: families of block transformers, over their block lengths and length by length."""
    families: Members = {}
    for name, members in by_family(points).items():
        if members[0].kind in ("block", "uptrained"):
            families[name] = members
            lengths = sorted({point.cell.block_length or 0 for point in members})
            for length in lengths if len(lengths) > 1 else []:
                families[f"{name} L={length}"] = [point for point in members if point.cell.block_length == length]
    return families


def references(points: Iterable[Point]) -> Members:
    """What they are compared with: each family of vanilla transformers, and transformers' ``generate``."""
    return {name: members for name, members in by_family(points).items() if members[0].kind == "vanilla"}


def generate_points(points: Iterable[Point]) -> list[Point]:
    """The vanilla points at the speed of transformers' ``generate``, where it was measured in any setting.

    What was measured of our engine alone, such as memory, is not a number in them.
    """
    made = []
    for point in points:
        rows = tuple(_at_their_speed(row) for row in point.rows)
        if all(row.timed for row in rows):
            label = f"{point.kind}, {GENERATE}"
            made.append(
                dataclasses.replace(point, name=f"{point.name} by {GENERATE}", family=label, series=label, rows=rows)
            )
    return made


def _at_their_speed(row: Row) -> Row:
    fastest = {name: _fastest(ours) for name, ours in row.benchmark.settings.items() if ours.baselines}
    settings = {name: _theirs(row.benchmark.settings[name], best) for name, best in fastest.items()}
    repeats = min((best.repeats for best in fastest.values()), default=0)
    return dataclasses.replace(row, benchmark=dataclasses.replace(row.benchmark, settings=settings, repeats=repeats))


def _fastest(ours: SettingResult) -> Baseline:
    """The faster one of transformers' caches."""
    return max(ours.baselines, key=lambda baseline: baseline.tokens_per_second)


def _theirs(ours: SettingResult, best: Baseline) -> SettingResult:
    """The setting as the baseline measured it."""
    return SettingResult(
        prompt=ours.prompt,
        new_tokens=ours.new_tokens,
        batch=best.batch,
        tokens_per_second=best.tokens_per_second,
        decode_tokens_per_second=math.nan,
        spread=best.spread,
        time_to_first_token=math.nan,
        latency_per_token=math.nan,
        bytes_per_sample=math.nan,
        kv_bytes_per_sample=math.nan,
        measurements=[],
    )
