"""The report says with which recipe each model was trained, how that was found, and what it is worth."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.page import recipes as page
from pipeline.analysis.page.report import write_report
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.analysis.statistics.recipes import differing, in_words, recipes, summary
from pipeline.study import Study, cells
from pipeline.study.schema import Pretrain, Recipe, Tuning
from pipeline.study.tune_space import recipe_hash

FOUND = Tuning("tuned", ["vanilla-s"], tokens=1_000_000, trials=8, halved=0.012, doubled=0.030)
EDGE = Tuning("tuned", ["block-s-4-base"], 1_000_000, 8, at_edge=["learning_rate"], halved=0.022)
SHARED = Tuning("shared", ["vanilla-s"], 1_000_000, 8)
LAW = Tuning("predicted", ["vanilla-s"], 1_000_000, 8, intervals={"learning_rate": [0.001, 0.005]})
RECIPES = {
    "vanilla-s": Recipe(learning_rate=0.002, tuning=FOUND),
    "block-s-4-base": Recipe(optimizer="muon", learning_rate=0.004, weight_decay=0.0, tuning=EDGE),
    "vanilla-m": Recipe(learning_rate=0.003, tuning=LAW),
}


def with_recipes(study: Study, found: dict[str, Recipe]) -> Findings:
    return find(load_rows(dataclasses.replace(study, recipes=found))[0])


def with_tuning(study: Study, tunings: dict[str, Tuning | None]) -> Findings:
    return with_recipes(study, {model: Recipe(tuning=tuning) for model, tuning in tunings.items()})


def models(study: Study) -> list[str]:
    return [cell.model for cell in cells(study)]


def test_each_model_has_the_recipe_that_its_cells_are_trained_with(study: Study) -> None:
    found = {each.model: each for each in with_recipes(study, RECIPES).recipes}
    assert list(found) == models(study)
    assert {model: each.status for model, each in found.items() if each.status != "untuned"} == {
        "vanilla-s": "tuned",
        "block-s-4-base": "tuned",
        "vanilla-m": "predicted",
    }
    assert found["block-s-4-base"].keys()["matrix_learning_rate"] == 0.004  # Muon's, where none is given
    assert found["vanilla-s"].keys()["matrix_learning_rate"] is None
    assert (found["vanilla-s"].steps, found["vanilla-s"].tokens) == ((366,), (3_000_000,))


def test_the_table_has_the_keys_in_which_models_differ_and_the_others_are_said_once(study: Study) -> None:
    section = page.section(with_recipes(study, RECIPES))
    assert section["summary"] == [
        "Recipes of 8 models: 2 tuned, 1 predicted, 5 untuned.",
        "The best value was the least or the greatest that was tried, so the optimum is not bracketed: "
        "block-s-4-base (learning_rate).",
        "A factor of two in the learning rate costs 0.012 to 0.030 nats per token (most: vanilla-s, doubled).",
        "Every model: batch size 16, warmup steps 40, schedule cosine, steps 366, tokens 3M.",
    ]
    head, rows = section["table"].head, {row[0]: row[1:] for row in section["table"].rows}
    assert head == [
        *("Model", "Optimizer", "Learning rate", "Matrix learning rate", "Weight decay"),
        *("Recipe", "By trials of", "Trials", "Tokens per trial", "Bracketed"),
        *("Half the rate costs", "Twice the rate costs", "95 % interval"),
    ]
    assert " ".join(rows["vanilla-s"]) == "adamw 0.002 - 0.1 tuned vanilla-s 8 1M yes +0.012 +0.030 -"
    assert rows["block-s-4-base"][:4] == ["muon", "0.004", "0.004", "0"]
    assert rows["block-s-4-base"][4:] == [
        "tuned",
        "block-s-4-base",
        "8",
        "1M",
        "not in learning_rate",
        "+0.022",
        "-",
        "-",
    ]
    assert rows["vanilla-m"][-4:] == ["-", "-", "-", "learning rate 0.001 to 0.005"]
    assert rows["block-m-8-base"] == ["adamw", "0.001", "-", "0.1", "untuned", *["-"] * 7]


def test_a_study_without_tuning_is_told_so_in_one_sentence(study: Study) -> None:
    section = page.section(find(load_rows(study)[0]))
    assert section["summary"] == [
        "No recipe was tuned.",
        "Every model: optimizer adamw, learning rate 0.001, batch size 16, warmup steps 40, schedule cosine, "
        "steps 366, tokens 3M.",
    ]
    assert section["table"].rows == []


def test_untuned_rates_by_size_are_a_table_of_rates_alone(study: Study) -> None:
    sizes = study.sizes | {
        "m": dataclasses.replace(
            study.sizes["m"], pretrain=dataclasses.replace(study.sizes["m"].pretrain, learning_rate=5e-4)
        )
    }
    table = page.section(find(load_rows(dataclasses.replace(study, sizes=sizes))[0]))["table"]
    assert table.head == ["Model", "Learning rate"]
    assert {row[0]: row[1] for row in table.rows}["block-m-2-base"] == "0.0005"


def test_the_headline_says_tuned_only_where_every_model_compared_is(study: Study) -> None:
    every = models(study)
    assert with_tuning(study, {}).answer.endswith("on Test CPU, 2 threads, fp32, with untuned recipes.")
    assert with_tuning(study, dict.fromkeys(every, FOUND)).answer.endswith("fp32, with tuned recipes.")
    most = dict.fromkeys(every, FOUND) | {"vanilla-m": LAW, "block-s-2-base": None, "block-s-4-base": SHARED}
    told = with_tuning(study, most).answer
    assert told.endswith(
        "with recipes tuned for 5 of 8 models "
        "(block-s-2-base is untuned, block-s-4-base is shared, vanilla-m is predicted)."
    )
    few = with_tuning(study, {"vanilla-s": FOUND, "vanilla-m": LAW}).answer
    assert few.endswith("with recipes tuned for 1 of 8 models (1 predicted, 6 untuned).")


def test_a_recipe_whose_other_keys_were_edited_since_is_not_called_tuned(study: Study) -> None:
    cell = next(cell for cell in cells(study) if cell.model == "vanilla-s")
    own = dataclasses.replace(FOUND, keys=recipe_hash(study, cell))
    every = dict.fromkeys(models(study), FOUND) | {"vanilla-s": own}
    assert with_tuning(study, every).answer.endswith("fp32, with tuned recipes.")
    edited = dataclasses.replace(study, pretrain=dataclasses.replace(study.pretrain, weight_decay=0.0))
    findings = with_tuning(edited, every)
    assert findings.answer.endswith("tuned for 7 of 8 models (vanilla-s is tuned with other keys).")
    assert page.section(findings)["summary"][0] == "Recipes of 8 models: 7 tuned, 1 tuned with other keys."


def test_a_family_that_is_not_compared_does_not_make_the_headline_untuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64), "m": (4, 128)}, [2, 4], others=True)
    write_results(study)
    plain = [model for model in models(study) if model.startswith(("vanilla", "block-s", "block-m"))]
    assert with_tuning(study, dict.fromkeys(plain, FOUND)).answer.endswith("with tuned recipes.")


def test_models_trained_elsewhere_have_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64)}, [4], others=True)
    write_results(study)
    found = find(load_rows(study)[0])
    assert [each.model for each in found.recipes] == ["vanilla-s", "block-s-4-base", "block-vanilla-s-0-4-up"]
    assert "pythia" not in page.recipes_csv(found.rows)
    assert page.recipes_csv([row for row in found.rows if row.recipe is None]).count("\n") == 1
    assert (summary([]), differing([])) == ([], [])


def test_seeds_and_budgets_of_a_model_share_its_line(rows: list[Row]) -> None:
    row = rows[0]

    def trained(seed: int, tokens: int, steps: int) -> Row:
        cell = dataclasses.replace(row.cell, seed=seed, budget=None if tokens == 3_000_000 else tokens)
        return dataclasses.replace(
            row, cell=cell, pretrain=dataclasses.replace(row.pretrain, tokens=tokens, steps=steps)
        )

    (model,) = recipes([trained(0, 3_000_000, 366), trained(0, 1_000_000, 123), trained(1, 3_000_000, 366)])
    assert (model.tokens, model.steps) == ((1_000_000, 3_000_000), (123, 366))
    assert in_words([model]) == "with untuned recipes"


def test_a_schedule_with_a_cooldown_shows_it_where_models_differ(rows: list[Row]) -> None:
    wsd = dataclasses.replace(rows[1].recipe or Pretrain(), schedule="wsd", cooldown=0.3)
    found = recipes([rows[0], dataclasses.replace(rows[1], recipe=wsd)])
    assert differing(found) == ["schedule", "cooldown"]


@pytest.mark.usefixtures("no_png")
def test_files_and_page_tell_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64), "m": (4, 128)}, [4], few_figures=True)
    write_results(study)
    write_report(dataclasses.replace(study, recipes=RECIPES), tmp_path / "report")
    records = {row["cell"]: row for row in csv.DictReader(io.StringIO((tmp_path / "report/recipes.csv").read_text()))}
    assert list(records) == [cell.name for cell in cells(study)]
    first = records["block-s-4-base-0"]
    assert (first["optimizer"], first["learning_rate"], first["betas"]) == ("muon", "0.004", "0.9 0.95")
    assert (first["status"], first["trials"], first["at_edge"]) == ("tuned", "8", "learning_rate")
    assert (first["halved"], first["doubled"], first["steps"]) == ("0.022", "", "366")
    assert records["block-m-4-base-0"]["status"] == "untuned"
    told = json.loads((tmp_path / "report/report.json").read_text())
    assert told["recipes"]["vanilla-m"] == "predicted"
    text = (tmp_path / "report/index.html").read_text()
    assert '<section id="recipes">' in text
    assert "Recipes of 4 models: 2 tuned, 1 predicted, 1 untuned." in text
