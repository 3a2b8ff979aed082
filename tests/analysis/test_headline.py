"""The headline says what it knows: made by hand, so that every number in it is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.analysis.rows import timing
from pipeline.analysis.rows.families import GROUPED
from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.results.metrics import setting_metric
from pipeline.results.records import Baseline

RATE = setting_metric("decode_heavy", "tokens_per_second")
TIMED = {"repeats": 3, "spread": 0.1}
WIDTH = 2 * 1.96 * 0.1 / 1.693 * 1.2533 / math.sqrt(3) * math.sqrt(1 + 0.5**2 + 0.5**2)
"""Of the logarithm of a ratio between one rate and a mean of two, each timed so."""
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
        template.benchmark,
        cell=cell.identity(template.benchmark.cell.fingerprint),
        settings={"decode_heavy": setting},
        repeats=int(made.get("repeats", 1)),
    )
    return dataclasses.replace(template, cell=cell, evaluate=scored, benchmark=timed, recipe=None, tuning=None)


def study(template: Row, block: dict[int, tuple[float, float]], **made: float) -> Findings:
    """The vanilla models, and one block transformer of size s per length."""
    vanilla = [row(template, size, None, *place, **made) for size, place in VANILLA.items()]
    return find([*vanilla, *(row(template, "s", length, *place, **made) for length, place in block.items())])


Places = dict[str, tuple[float, float]]


def family(template: Row, attention: str, length: int | None, places: Places) -> list[Row]:
    """A model of each size at (loss, tokens/s)."""
    return [
        dataclasses.replace(row(template, f"{size}{attention}", length, *place), attention=attention)
        for size, place in places.items()
    ]


def times(factor: float) -> Places:
    """The vanilla models, so many times as fast."""
    return {size: (loss, factor * rate) for size, (loss, rate) in VANILLA.items()}


def with_speed(made: Row, setting: str, rate: float) -> Row:
    """The row with a further setting."""
    measured = dataclasses.replace(made.benchmark.settings["decode_heavy"], tokens_per_second=rate)
    settings = made.benchmark.settings | {setting: measured}
    return dataclasses.replace(made, benchmark=dataclasses.replace(made.benchmark, settings=settings))


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


def seeded(template: Row, shift: float, **made: float) -> list[Row]:
    """Three seeds of the vanilla models and of a block transformer, each with a loss that much above the one before."""
    places = [(None, size, place) for size, place in VANILLA.items()] + [(2, "s", (2.5, 700.0))]
    return [
        row(template, size, length, loss + shift * seed, rate, seed=seed, **made)
        for length, size, (loss, rate) in places
        for seed in range(3)
    ]


def test_several_seeds_are_counted(template: Row) -> None:
    cells = seeded(template, 0.01)
    assert find(cells).basis[0] == (
        "Each model was trained with 3 seeds; "
        "the intervals take in seeds, but not test documents and repeats of a timing."
    )
    some = [each for each in seeded(template, 0.01, documents=0.1) if each.cell.block_length is None]
    alone = row(template, "s", 2, 2.5, 700.0, documents=0.1)
    assert find([*some, alone]).basis[0] == (
        "Each model was trained with 1 to 3 seeds; the intervals take in seeds of the models that have several and test"
        " documents, but not repeats of a timing."
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
    cells = [
        with_speed(row(template, size, length, loss, rate), "prefill_heavy", other)
        for size, length, loss, rate, other in places
    ]
    assert find(cells).answer.endswith(
        " No speed-up can be stated in the prefill-heavy setting: the lowest loss of block transformers is 2.500 nats "
        "per token, above the highest on the front of vanilla transformers, 2.000."
    )


def interval(found: Findings) -> tuple[float, float]:
    """Of the headline's ratio."""
    best = found.quality[0].matched.best
    assert best is not None
    assert best.low is not None
    assert best.high is not None
    return best.low, best.high


def test_timings_that_spread_widen_the_interval_by_as_much(template: Row) -> None:
    """All documents are alike, so it is the timings': of one rate, and of a mean of two."""
    low, high = interval(study(template, {2: (2.5, 700.0)}, documents=0, **TIMED))
    assert math.log(high / low) == pytest.approx(WIDTH, rel=0.15)
    assert low < 7.0 < high


def test_a_timing_that_seeds_share_is_no_surer_than_that_of_one_seed(template: Row) -> None:
    own = seeded(template, 0.0, documents=0, **TIMED)
    shared = [
        dataclasses.replace(each, benchmark=own[at - at % 3].benchmark)  # the first seed's
        for at, each in enumerate(own)
    ]
    widths = [math.log(high / low) for low, high in (interval(find(own)), interval(find(shared)))]
    assert widths == pytest.approx([WIDTH / math.sqrt(3), WIDTH], rel=0.15)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("strong", "words"), [("", ""), (GROUPED, f" with {GROUPED} attention")])
def test_the_best_block_transformers_are_told_against_the_strongest_vanilla_ones(
    template: Row, strong: str, words: str, backwards: bool
) -> None:
    """At 2.5 the vanilla families have 100 and 2,000 tokens/s; block transformers 700 and 1,600."""
    weak = GROUPED if not strong else ""
    cells = [
        *family(template, weak, None, times(1)),
        *family(template, strong, None, times(20)),
        *family(template, weak, 2, {"s": (2.5, 700.0)}),
        *family(template, strong, 2, {"s": (2.5, 1600.0)}),
    ]
    found = find(cells[::-1] if backwards else cells)
    assert f"block transformers{words} generate 0.8 times as fast as vanilla transformers{words} in the" in found.answer
    assert found.basis[1].startswith(f"The speed of vanilla transformers{words} at that loss")
    same_subject, *others = found.further
    assert same_subject.startswith("Against vanilla transformers")
    assert ": 16 times as fast in the decode-heavy setting" in same_subject
    assert sorted(sentence.partition(": ")[2] for sentence in others) == [
        "0.35 times as fast in the decode-heavy setting.",
        "7 times as fast in the decode-heavy setting.",
    ]


def test_a_vanilla_family_that_no_block_transformer_reaches_is_the_strongest(template: Row) -> None:
    ahead = {"s": (1.5, 1000.0), "m": (1.0, 10.0)}
    block = family(template, "", 2, {"s": (2.5, 700.0)})
    found = find([*family(template, "", None, VANILLA), *family(template, GROUPED, None, ahead), *block])
    assert found.headline == (
        "No speed-up at equal loss can be stated: the lowest loss of block transformers is 2.500 nats per token, above "
        "the highest on the front of vanilla transformers with grouped-query attention, 1.500."
    )
    assert found.further == [
        "Against vanilla transformers (2.500 nats per token): 7 times as fast in the decode-heavy setting."
    ]


def test_a_vanilla_family_that_reaches_no_block_transformer_is_no_strong_one(template: Row) -> None:
    behind = {"s": (4.0, 10_000.0), "m": (3.5, 9_000.0)}
    block = family(template, "", 2, {"s": (2.5, 700.0)})
    found = find([*family(template, "", None, behind), *family(template, GROUPED, None, VANILLA), *block])
    assert "generate 7 times as fast as vanilla transformers with grouped-query attention" in found.answer


def test_the_least_of_its_settings_counts_for_a_family(template: Row) -> None:
    """Prefill-heavy the ratios are 1.4 and 1.5, decode-heavy 7 and 0.35: the second is the stronger family."""
    rates = {"": [1.0, 1.0, 1.0], GROUPED: [20.0, 14 / 15, 14 / 15]}
    cells = [with_speed(made, "prefill_heavy", 140.0) for made in family(template, "", 2, {"s": (2.5, 700.0)})]
    for attention, (decode, *prefill) in rates.items():
        for made, factor, (_, rate) in zip(
            family(template, attention, None, times(decode)), prefill, VANILLA.values(), strict=True
        ):
            cells.append(with_speed(made, "prefill_heavy", factor * rate))
    answer = find(cells).answer
    assert "as vanilla transformers with grouped-query attention in the decode-heavy setting and 1.5 times" in answer


def test_another_engine_and_uptrained_models_are_told_after_what_was_trained_and_run_alike(template: Row) -> None:
    """Were their ratios 0.7 and 30, that of generate would be the least, that of uptrained ones the greatest."""

    def by_generate(made: Row) -> Row:
        timed = made.benchmark.settings["decode_heavy"]
        theirs = Baseline("static", batch=1, tokens_per_second=10 * timed.tokens_per_second, spread=0.0, repeats=1)
        settings = {"decode_heavy": dataclasses.replace(timed, baselines=[theirs])}
        return dataclasses.replace(made, benchmark=dataclasses.replace(made.benchmark, settings=settings))

    vanilla = [by_generate(made) for made in family(template, "", None, VANILLA)]
    (best,) = family(template, "", 2, {"s": (2.5, 3000.0)})
    uptrained = dataclasses.replace(best, cell=dataclasses.replace(best.cell, source="vanilla-s-0"))
    found = find([*vanilla, *family(template, "", 2, {"s": (2.5, 700.0)}), uptrained])
    assert " block transformers generate 7 times as fast as vanilla transformers in the" in found.answer
    assert [sentence.partition(" (")[0] for sentence in found.further] == [
        "Against vanilla transformers run by transformers' generate",
        "Uptrained block transformers against vanilla transformers",
        "Uptrained block transformers against vanilla transformers run by transformers' generate",
    ]
    assert ": 0.7 times as fast" in found.further[0]


@pytest.mark.parametrize("repeats", [2, 3, 5, 10])
def test_a_timing_s_deviation_is_found_from_its_range(template: Row, repeats: int) -> None:
    times = np.random.default_rng(0).normal(1, 0.01, size=(20_000, repeats))
    found = [
        timing.deviation(row(template, "s", None, 2.0, 100.0, spread=spread, repeats=repeats), RATE)
        for spread in (times.max(axis=1) - times.min(axis=1))[:500]
    ]
    assert np.mean(found) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(("smaller", "told"), [("m", True), ("s", False)])
def test_a_loss_that_the_smallest_vanilla_model_beats_is_told(template: Row, smaller: str, told: bool) -> None:
    """Of block transformers at 2.5 nats; vanilla s has 3.0 and m 2.0."""
    other = "m" if smaller == "s" else "s"
    vanilla = [row(template, size, None, *VANILLA[size]) for size in (other, smaller)]
    small = dataclasses.replace(vanilla[1].pretrain, non_embedding_parameters=10)
    made = [vanilla[0], dataclasses.replace(vanilla[1], pretrain=small), row(template, "s", 2, 2.5, 700.0)]
    sentence = (
        "A vanilla transformer of the smallest size beats that loss (vanilla-m has 2.000 nats per token, below 2.500)"
    )
    assert any(each.startswith(sentence) for each in find(made).basis) == told
