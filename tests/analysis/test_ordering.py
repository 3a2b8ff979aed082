"""The order of block lengths: where it holds, and where it does not."""

from __future__ import annotations

import dataclasses

from pipeline.analysis.rows.points import Row, points
from pipeline.analysis.statistics.ordering import compare, compare_best_allocations, summary
from pipeline.results.metrics import LOSS


def with_loss(rows: list[Row], name: str, loss: float) -> list[Row]:
    return [
        dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, loss=loss)) if row.name == name else row
        for row in rows
    ]


def test_all_neighbours_of_an_ordered_study_hold(rows: list[Row]) -> None:
    found = compare(points(rows))
    assert [(item.size, item.first, item.second) for item in found][:3] == [
        ("s", "vanilla", "block L=2"),
        ("s", "block L=2", "block L=4"),
        ("s", "block L=4", "block L=8"),
    ]
    assert len(found) == 6
    assert "6 of 6" in summary(found)


def test_an_exception_is_named_with_both_values(rows: list[Row]) -> None:
    found = compare(points(with_loss(rows, "block-m-4-base-0", 3.0)))
    assert [item.holds for item in found] == [True, True, True, True, False, True]
    sentence = summary(found)
    assert "5 of 6" in sentence
    assert "size m: block L=2 (3.96) is not below block L=4 (3)" in sentence


def test_equal_values_are_no_order(rows: list[Row]) -> None:
    same = next(row.evaluate.loss for row in rows if row.name == "block-s-2-base-0")
    found = compare(points(with_loss(rows, "block-s-4-base-0", same)))
    assert not found[1].holds


def test_a_study_of_one_family_has_nothing_to_compare(rows: list[Row]) -> None:
    alone = [row for row in rows if row.cell.family == "vanilla"]
    assert compare(points(alone), LOSS) == []
    assert "no two block lengths" in summary([])


def allocated(rows: list[Row], losses: dict[tuple[int, str], float]) -> list[Row]:
    """Blocks of size s with these losses by (block length, ratio), and parameters in that ratio."""
    row = next(row for row in rows if row.name == "block-s-2-base-0")
    made = []
    for (length, ratio), loss in losses.items():
        block, token = map(int, ratio.split("to"))
        parameters = row.pretrain.parameters | {"block_decoder": 1000 * block, "token_decoder": 1000 * token}
        cell = dataclasses.replace(row.cell, block_length=length, variant=ratio)
        pretrain = dataclasses.replace(row.pretrain, parameters=parameters)
        made.append(Row(cell, pretrain, dataclasses.replace(row.evaluate, loss=loss), row.benchmark))
    return made


def test_longer_blocks_are_expected_to_favour_the_token_decoder(rows: list[Row]) -> None:
    losses = {(2, "5to1"): 3.0, (2, "1to1"): 3.1, (2, "1to5"): 3.2}
    losses |= {(4, "5to1"): 3.3, (4, "1to1"): 3.2, (4, "1to5"): 3.4}
    losses |= {(8, "5to1"): 3.5, (8, "1to1"): 3.6, (8, "1to5"): 3.7}
    found = compare_best_allocations(points(allocated(rows, losses)))
    assert [(round(item.before, 3), round(item.after, 3), item.holds) for item in found] == [
        (0.167, 0.5, True),
        (0.5, 0.167, False),
    ]
    assert "1 of 2" in summary(found)


def test_a_study_of_one_allocation_has_no_best_one(rows: list[Row]) -> None:
    assert compare_best_allocations(points(rows)) == []
