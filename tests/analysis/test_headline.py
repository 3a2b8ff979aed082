"""The headline says what it knows: made by hand, so that every number in it is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.analysis.rows import timing
from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.results.metrics import setting_metric

RATE = setting_metric("decode_heavy", "tokens_per_second")
VANILLA = {"s": (3.0, 1000.0), "m": (2.0, 10.0)}  # a factor of 100 per nat


def row(template: Row, size: str, length: int | None, loss: float, rate: float, **made: float) -> Row:
    """``made``: its seed, the spread and the number of its timings, and how far documents lie from the loss."""
    setting = dataclasses.replace(
        template.benchmark.settings["decode_heavy"],
        tokens_per_second=rate,
        spread=made.get("spread", 0.0),
        baselines=[],
    )
    family, variant = ("block", "base") if length else ("vanilla", None)
    seed = int(made.get("seed", 0))
    cell = dataclasses.replace(template.cell, family=family, size=size, block_length=length, variant=variant, seed=seed)
    documents = [loss - made["documents"], loss + made["documents"]] * 10 if "documents" in made else []
    scored = dataclasses.replace(
        template.evaluate,
        loss=loss,
        nats_by_document=[100 * each for each in documents],
        targets_by_document=[100] * len(documents),
    )
    timed = dataclasses.replace(
        template.benchmark, settings={"decode_heavy": setting}, repeats=int(made.get("repeats", 1))
    )
    return dataclasses.replace(template, cell=cell, evaluate=scored, benchmark=timed, recipe=None, tuning=None)


def study(template: Row, block: dict[int, tuple[float, float]], **made: float) -> Findings:
    """The vanilla models, and one block transformer of size s per length."""
    vanilla = [row(template, size, None, *place, **made) for size, place in VANILLA.items()]
    return find([*vanilla, *(row(template, "s", length, *place, **made) for length, place in block.items())])


@pytest.fixture
def template(rows: list[Row]) -> Row:
    return rows[0]


def test_ratio_distance_and_order_are_those_of_the_models(template: Row) -> None:
    """Vanilla at 2.5 is between 2.0 and 3.0: 100 tokens/s."""
    found = study(template, {2: (2.5, 700.0), 4: (2.9, 600.0)})
    assert "(2.500 nats per token), block transformers generate 7 times as fast as vanilla" in found.answer
    assert found.basis == [
        "Each model was trained once, and there is no interval.",
        "The speed of vanilla transformers at that loss is interpolated between models 1.00 nats apart.",
        "Neighbouring block lengths are ordered as in the paper in 1 of 2 comparisons of loss and 0 of 2 comparisons of"
        " speed.",
    ]
    assert found.headline == " ".join((found.answer, *found.basis))


def test_the_greatest_ratio_is_called_so(template: Row) -> None:
    """7 times at 2.5, and at 2.9 800 tokens/s against 631."""
    found = study(template, {2: (2.5, 700.0), 4: (2.9, 800.0)})
    assert (
        "It is the greatest ratio at any loss that both reach in decode-heavy, where the least is 1.27 at 2.900."
        in (found.basis)
    )
    rising = study(template, {2: (2.5, 110.0), 4: (2.9, 1300.0)})
    assert not any("greatest" in sentence for sentence in rising.basis)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"documents": 0.1}, "the intervals take in test documents, but not other seeds and repeats of a timing."),
        (
            {"documents": 1, "repeats": 3, "spread": 0.06},
            "the intervals take in test documents and the 3 repeats of each timing, but not other seeds.",
        ),
    ],
)
def test_what_the_interval_lacks_is_said(template: Row, made: dict[str, float], told: str) -> None:
    assert study(template, {2: (2.5, 700.0)}, **made).basis[0] == f"Each model was trained once; {told}"


def test_several_seeds_are_counted(template: Row) -> None:
    places = [("vanilla", None, size, place) for size, place in VANILLA.items()] + [("block", 2, "s", (2.5, 700.0))]
    cells = [
        row(template, size, length, loss + 0.01 * seed, rate, seed=seed)
        for _, length, size, (loss, rate) in places
        for seed in range(3)
    ]
    assert find(cells).basis[0] == (
        "Each model was trained with 3 seeds; "
        "the intervals take in seeds, but not test documents and repeats of a timing."
    )


def test_families_apart_are_told_by_the_two_losses_between_them(template: Row) -> None:
    found = study(template, {2: (3.5, 5000.0)})
    assert found.headline == (
        "No speed-up at equal loss can be stated: "
        "the lowest loss of block transformers is 3.500 nats per token, above the highest on the front of "
        "vanilla transformers, 3.000."
    )
    better = study(template, {2: (1.5, 5000.0)})
    assert better.headline.endswith(
        "the lowest loss of vanilla transformers is 2.000 nats per token, above the highest on the front of block "
        "transformers, 1.500."
    )


def test_a_setting_without_a_shared_loss_is_told_beside_one_that_has_one(template: Row) -> None:
    """Prefill-heavy, the larger vanilla model is the faster one too, so that the other is on no front."""
    places = [("s", None, 3.0, 1000.0, 5.0), ("m", None, 2.0, 10.0, 50.0), ("s", 2, 2.5, 700.0, 700.0)]
    cells = []
    for size, length, loss, rate, other in places:
        made = row(template, size, length, loss, rate)
        slow = dataclasses.replace(made.benchmark.settings["decode_heavy"], tokens_per_second=other)
        settings = made.benchmark.settings | {"prefill_heavy": slow}
        cells.append(dataclasses.replace(made, benchmark=dataclasses.replace(made.benchmark, settings=settings)))
    assert find(cells).answer.endswith(
        " No speed-up can be stated in the prefill-heavy setting: the lowest loss of block transformers is 2.500 nats "
        "per token, above the highest on the front of vanilla transformers, 2.000."
    )


def test_timings_that_spread_widen_the_interval_by_as_much(template: Row) -> None:
    """All documents are alike, so it is the timings': of one rate, and of a mean of two."""
    best = study(template, {2: (2.5, 700.0)}, documents=0, repeats=3, spread=0.1).quality[0].matched.best
    assert best is not None
    assert best.low is not None
    assert best.high is not None
    one = 0.1 / 1.693 * 1.2533 / math.sqrt(3)
    width = 2 * 1.96 * one * math.sqrt(1 + 0.5**2 + 0.5**2)
    assert math.log(best.high / best.low) == pytest.approx(width, rel=0.15)
    assert best.low < 7.0 < best.high


@pytest.mark.parametrize("repeats", [2, 3, 5, 10])
def test_a_timing_s_deviation_is_found_from_its_range(template: Row, repeats: int) -> None:
    times = np.random.default_rng(0).normal(1, 0.01, size=(20_000, repeats))
    found = [
        timing.deviation(row(template, "s", None, 2.0, 100.0, spread=spread, repeats=repeats), RATE)
        for spread in (times.max(axis=1) - times.min(axis=1))[:500]
    ]
    assert np.mean(found) == pytest.approx(0.01, rel=0.05)
