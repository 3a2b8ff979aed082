"""docs/results/layers.md against the records that it is from."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from pipeline.base.files import read_json
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results"
PAGE = (FOLDER / "layers.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| ([\d.]+) \| `(layers/.*)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("told", "record"), ROWS)
def test_a_row_has_its_records_loss(told: str, record: str) -> None:
    assert f"{read_json(FOLDER / f'{record}.json')['loss']:.3f}" == told


@pytest.mark.parametrize("length", "24")
def test_the_means_of_two_seeds_are_told(length: str) -> None:
    means = [
        mean(read_json(FOLDER / pattern.format(length, seed))["loss"] for seed in (0, 1))
        for pattern in (
            "layers/tuned_rates/evaluate-block-19m-{}-normed-{}.json",
            "changes/results/evaluate/block-19m-{}-base-{}.json",
        )
    ]
    assert f"{means[0]:.3f} against {means[1]:.3f}" in PAGE
    assert means[0] - means[1] == pytest.approx(0.035, abs=0.002)


def test_every_record_is_told() -> None:
    assert {f"{path.relative_to(FOLDER).with_suffix('')}" for path in FOLDER.glob("layers/*/evaluate-*.json")} == {
        record for _, record in ROWS
    }
