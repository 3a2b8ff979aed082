"""docs/results/uptraining.md against its records."""

from __future__ import annotations

import csv
import re

import pytest

from pipeline.base.files import read_json
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results/uptraining"
PAGE = (FOLDER.parent / "uptraining.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(block-.*)` \| (.*) \|$", PAGE, re.MULTILINE)
STEPS = ("250", "1000", "2000", "3052")


def validation(cell: str) -> list[str]:
    with (FOLDER / f"curves/{cell}.csv").open(encoding="utf-8", newline="") as file:
        losses = {row["step"]: row["validation_loss"] for row in csv.DictReader(file)}
    return [f"{float(losses[step]):.3f}" if step in losses else "" for step in STEPS]


def scores(cell: str) -> list[str]:
    evaluated, timed = (read_json(FOLDER / f"{kind}/{cell}.json") for kind in ("evaluate", "benchmark"))
    speeds = [timed["settings"][setting] for setting in ("decode_heavy", "prefill_heavy")]
    told = [f"{evaluated['loss']:.3f}", f"{evaluated['bits_per_byte']:.3f}"]
    return [*told, *(f"{each['tokens_per_second']:,.0f} | {each['roofline_fraction']:.0%}" for each in speeds)]


@pytest.mark.parametrize(("model", "told"), ROWS, ids=[model for model, _ in ROWS])
def test_a_row_is_its_records(model: str, told: str) -> None:
    trained = (FOLDER / f"evaluate/{model}-0.json").exists()
    expected = [*validation(f"{model}-0"), *(scores(f"{model}-0") if trained else [""] * 6)]
    assert " | ".join(expected) == told


def test_the_sources_own_loss_is_on_the_same_documents() -> None:
    own = read_json(FOLDER / "source.json")
    count, targets = own["documents"], sum(own["targets"])
    losses = [sum(own["nats"]) / targets]
    for length in (2, 4):
        record = read_json(FOLDER / f"evaluate/block-smollm2-{length}-partition-0.json")
        assert record["targets_by_document"][:count] == own["targets"]
        losses.append(sum(record["nats_by_document"][:count]) / targets)
    own_loss, two, four = (f"{loss:.3f}" for loss in losses)
    text = " ".join(PAGE.split())
    assert f"has {own_loss} on the first {count} documents of the same text, where they have {two} and {four}" in text
    assert f"the first {count} of 503 test documents, {targets:,} tokens" in text


def test_it_is_held_against_models_of_the_same_text_by_bits_per_byte() -> None:
    def bits(path: str) -> str:
        return f"{read_json(FOLDER.parent / path)['bits_per_byte']:.3f}"

    trained = [bits(f"equal_loss/results/evaluate/block-85m_gqa-{length}-carried_all-0.json") for length in (4, 2)]
    uptrained = [bits(f"uptraining/evaluate/block-smollm2-{length}-partition-0.json") for length in (4, 2)]
    text = " ".join(PAGE.split())
    assert f"has {trained[0]} bits per byte with blocks of 4, less than the uptrained one's {uptrained[0]}" in text
    assert f"{trained[1]} against {uptrained[1]}" in text
