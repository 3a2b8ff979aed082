"""docs/results/recipe.md against the records that it is from."""

from __future__ import annotations

import json
import math
import re

import pytest
from ruamel.yaml import YAML

from pipeline.base.files import read_json
from pipeline.results.curve import read_rows
from pipeline.results.search import read_tuning
from tests.conftest import ROOT

FOLDER = ROOT / "docs/results/recipe"
PAGE = (ROOT / "docs/results/recipe.md").read_text(encoding="utf-8")
RUNS = sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.parametrize("run", RUNS)
def test_a_run_has_its_row_and_its_curve(run: str) -> None:
    record = read_json(FOLDER / run / "record.json")
    (row,) = re.findall(rf"^\| `{run}` \| (.*) \|$", PAGE, re.MULTILINE)
    scored, matrices = record["document_losses"], record["matrix_learning_rate"]
    rates = ["" if matrices is None else f"{matrices:g}", f"{record['learning_rate']:g}"]
    losses = (scored["test"], scored["validation"], record["validation_loss"])
    told = [record["model"], record["optimizer"], *rates, *(f"{loss:.3f}" for loss in losses)]
    assert row.split(" | ") == told
    last = read_rows(FOLDER / run / "curve.csv")[-1]
    assert (int(last["step"]), int(last["tokens"])) == (record["steps"], record["tokens"])
    assert float(last["validation_loss"]) == pytest.approx(record["validation_loss"], abs=1e-4)


def test_the_gaps_that_the_page_names_are_the_records() -> None:
    def test_loss(run: str) -> float:
        loss: float = read_json(FOLDER / run / "record.json")["document_losses"]["test"]
        return loss

    gaps = (
        ("block-19m-2", "vanilla-5m", "0.047"),
        ("block-19m-2_8e-3", "vanilla-5m_8e-3", "0.076"),
        ("vanilla-19m_8e-3", "vanilla-19m_16e-3", "0.002"),
        ("vanilla-19m_4e-3", "vanilla-19m_16e-3", "0.019"),
        ("block-19m-4_rest_4e-3", "block-19m-4_8e-3", "0.027"),
        ("block-85m-4", "vanilla-19m", "0.400"),
        ("block-85m-4", "vanilla-85m", "0.58"),
        ("block-19m-4", "vanilla-19m", "0.59"),
    )
    for behind, ahead, told in gaps:
        assert f"{test_loss(behind) - test_loss(ahead):.{len(told) - 2}f}" == told
        assert told in PAGE


def test_the_tuned_rates_are_the_best_trials() -> None:
    tuning = read_tuning(ROOT / "docs/results/tuning/results.json")
    assert tuning is not None
    text = (ROOT / "docs/results/tuning/recipes.yaml").read_text(encoding="utf-8")
    recipes = YAML(typ="safe").load(text)["recipes"]
    assert [model.model for model in tuning.models] == list(recipes)
    for model in tuning.models:
        best, recipe = min(model.complete, key=lambda trial: trial.loss or math.inf), recipes[model.model]
        assert len(model.trials) == recipe["tuning"]["trials"] == model.wanted
        assert best.point == {key: recipe[key] for key in best.point}
        (row,) = re.findall(rf"^\| {model.model} \| (.*) \|$", PAGE, re.MULTILINE)
        matrices, rest, loss, half = row.split(" | ")
        told = (matrices, rest.split()[0], loss, half)
        rates = (f"{recipe['matrix_learning_rate']:g}", f"{recipe['learning_rate']:g}")
        assert told == (*rates, f"{best.loss:.3f}", f"{recipe['tuning']['halved']:+.3f}")
        assert ("largest tried" in rest) == ("learning_rate" in recipe["tuning"].get("at_edge", []))


def test_the_table_of_the_main_studys_recipes_is_its_losses() -> None:
    page = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    lines = (ROOT / "docs/results/default_study/losses.jsonl").read_text(encoding="utf-8").splitlines()
    losses = {}
    for run in map(json.loads, lines):
        keys = ("optimizer", "learning_rate", "context_length", "vocabulary", "tokens", "batch_size", "steps", "cell")
        losses[tuple(run[key] for key in keys)] = run["validation_loss"]
    rows = re.findall(r"^\| ([ms]) \| (adamw|muon) ([\d.]+) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 20
    for size, optimizer, rate, rest in rows:
        context, vocabulary, tokens, batch, steps, *told = (text.replace(",", "") for text in rest.split(" | "))
        keys = (optimizer, float(rate), int(context), int(vocabulary), int(tokens), int(batch), int(steps))
        models = [f"vanilla-{size}", *(f"block-{size}-{length}-base" for length in (2, 4, 8))]
        for model, text in zip(models, told, strict=True):
            own = [losses.get((*keys, f"{model}-{seed}")) for seed in (0, 1)]
            assert text.strip() == " / ".join(f"{loss:.3f}" for loss in own if loss is not None)
