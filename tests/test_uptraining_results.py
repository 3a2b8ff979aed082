"""docs/results/uptraining.md against its records."""

from __future__ import annotations

import csv
import re
from typing import Any

import pytest

from pipeline.base.files import read_json
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results/uptraining"
PAGE = (FOLDER.parent / "uptraining.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
ROWS = re.findall(r"^\| `((?:block-|smollm2).*?)` \| (.*) \|$", PAGE, re.MULTILINE)
STEPS = ("250", "1000", "2000", "3052")


def cell(model: str) -> str:
    return model if model == "smollm2" else f"{model}-0"


def validation(model: str) -> list[str]:
    path = FOLDER / f"curves/{cell(model)}.csv"
    if not path.exists():
        return [""] * len(STEPS)
    with path.open(encoding="utf-8", newline="") as file:
        losses = {row["step"]: row["validation_loss"] for row in csv.DictReader(file)}
    return [f"{float(losses[step]):.3f}" for step in STEPS]


def scored(model: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(FOLDER / f"evaluate/{cell(model)}.json")
    return found


def timed(model: str) -> dict[str, Any]:
    path = FOLDER / f"benchmark/{cell(model)}.json"
    settings: dict[str, Any] = read_json(path)["settings"] if path.exists() else {}
    return settings


def speeds(model: str) -> list[str]:
    settings = timed(model)
    if not settings:
        return [""] * 4
    both = [settings[setting] for setting in ("decode_heavy", "prefill_heavy")]
    return [text for each in both for text in (f"{each['tokens_per_second']:,.0f}", f"{each['roofline_fraction']:.0%}")]


def test_every_record_has_its_row() -> None:
    assert {cell(model) for model, _ in ROWS} == {path.stem for path in (FOLDER / "evaluate").iterdir()}


@pytest.mark.parametrize(("model", "told"), ROWS, ids=[model for model, _ in ROWS])
def test_a_row_is_its_records(model: str, told: str) -> None:
    losses = [f"{scored(model)['loss']:.3f}", f"{scored(model)['bits_per_byte']:.3f}"]
    assert [*validation(model), *losses, *speeds(model)] == [text.strip() for text in told.split(" | ")]


def test_what_the_start_and_the_speed_are_worth() -> None:
    own = scored("smollm2")
    start, early, faster, behind = [], [], [], []
    for length in (2, 4):
        uptrained, scratch = f"block-smollm2-{length}-partition", f"block-135m-{length}-scratch"
        assert scored(uptrained)["targets_by_document"] == own["targets_by_document"]
        start.append(scored(scratch)["loss"] - scored(uptrained)["loss"])
        early.append(float(validation(scratch)[0]) - float(validation(uptrained)[0]))
        rates = [timed(model)["decode_heavy"]["tokens_per_second"] for model in (uptrained, "smollm2")]
        faster.append(rates[0] / rates[1])
        behind.append(scored(uptrained)["loss"] - own["loss"])
    assert "the start is worth {:.3f} and {:.3f} nats".format(*start) in TEXT
    assert "{:.2f} (blocks of 2) and {:.2f} nats (4) ahead".format(*early) in TEXT
    assert "{:.1f} times (blocks of 2) and {:.1f} times (4) as fast".format(*faster) in TEXT
    assert "{:.2f} and {:.2f} nats behind it".format(*behind) in TEXT


def test_it_is_held_against_models_of_the_same_text_by_bits_per_byte() -> None:
    def bits(path: str) -> str:
        return f"{read_json(FOLDER.parent / path)['bits_per_byte']:.3f}"

    trained = [bits(f"equal_loss/results/evaluate/block-85m_gqa-{length}-carried_all-0.json") for length in (4, 2)]
    uptrained = [bits(f"uptraining/evaluate/block-smollm2-{length}-partition-0.json") for length in (4, 2)]
    assert f"has {trained[0]} bits per byte with blocks of 4, less than the uptrained one's {uptrained[0]}" in TEXT
    assert f"{trained[1]} against {uptrained[1]}" in TEXT
    scratch = [bits(f"uptraining/evaluate/block-135m-{length}-scratch-0.json") for length in (4, 2)]
    assert all(own > theirs for own, theirs in zip(scratch, trained, strict=True))
