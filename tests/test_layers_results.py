"""docs/results/layers.md against the records that it is from."""

from __future__ import annotations

import re

import pytest

from pipeline.base.files import read_json
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results"
PAGE = (FOLDER / "layers.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| ([\d.]+) \| `(layers/.*)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("told", "record"), ROWS)
def test_a_row_has_its_records_loss(told: str, record: str) -> None:
    assert f"{read_json(FOLDER / f'{record}.json')['loss']:.3f}" == told


def test_every_record_is_told() -> None:
    assert {f"{path.relative_to(FOLDER).with_suffix('')}" for path in FOLDER.glob("layers/*/evaluate-*.json")} == {
        record for _, record in ROWS
    }
