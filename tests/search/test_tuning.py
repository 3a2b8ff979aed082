"""Tuning: the best rate is found, edges are said and widened, recipes are written, predicted and read again."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.analysis.figures.tuning import draw_tuning
from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.commands.main import main
from pipeline.commands.plan import plan, print_plan
from pipeline.results.environment import describe
from pipeline.results.records import DeviceRates
from pipeline.results.search import RECIPES, TUNED, TUNED_TABLE, ModelTuning, TuneResult, read_tuning
from pipeline.search.optima import cost_of_rate
from pipeline.search.problem import Problem
from pipeline.search.storage import Watch
from pipeline.search.trial import Measured, Prune
from pipeline.search.tuning import tune_worker
from pipeline.study import Study, cells, load_study, pretraining
from pipeline.study.load import load_for_tuning
from pipeline.study.recipe_space import Point
from pipeline.study.schema import Pretrain
from pipeline.study.tune_space import trial_study, tuned_cell
from pipeline.training import pretrain
from pipeline.training.curve import Row
from tests.search.conftest import Searching

Loss = Callable[[Pretrain, int], float]
RATES = ("[0.004, 0.01, 0.025]", "[1.0e-3, 2.0e-3, 4.0e-3, 8.0e-3, 1.6e-2]")
EIGHT = ("trials: 3\n  rounds: 1", "trials: 8\n  rounds: 2")
BATCHES = ("}\n  trials", ", batch_size: [2, 4, 8]}\n  trials")


def tuned(study: Study, loss: Loss) -> TuneResult:
    """The tuning with a formula in the place of training, of the trial's recipe and its model's width."""

    def run(problem: Problem, point: Point, prune: Prune, rates: DeviceRates | None) -> Measured:
        trial, cell = problem.trial(point)
        found = loss(pretraining(trial, cell), trial.sizes[cell.size].width)
        return Measured("complete", found, None, 0.0, describe("none", 1, "fp32"), cell.name)

    worker = tune_worker(study, run)
    worker.run()
    return worker.save()


def valley(at: float) -> Loss:
    """A loss whose least is at a learning rate; a factor of two costs 0.1."""
    return lambda pretrain, width: 3 + 0.1 * math.log2(pretrain.learning_rate / at) ** 2


def best(model: ModelTuning) -> Point:
    assert model.optimum is not None
    return model.optimum.point


def test_the_best_rate_of_a_known_loss_is_found_with_what_a_factor_of_two_costs(tuning: Searching) -> None:
    result = tuned(tuning(RATES, EIGHT, BATCHES), valley(4e-3))
    for model in result.models:
        assert len(model.trials) == 8
        assert best(model)["learning_rate"] == 4e-3
        assert "learning_rate" not in model.at_edge
        assert model.halved == pytest.approx(0.1)
        assert model.doubled == pytest.approx(0.1)


def test_a_best_value_at_the_edge_is_said(tuning: Searching) -> None:
    result = tuned(tuning(), valley(0.1))
    for model in result.models:
        assert model.trials[0].point == {"learning_rate": 0.01}, "the recipe that the model has comes first"
        assert best(model)["learning_rate"] == 0.025
        assert model.at_edge == ["learning_rate"]
        assert model.doubled is None
        assert model.halved is not None
    assert "at the edge of what was tried: learning_rate" in RECIPES.read_text()


def test_what_a_rate_costs_is_not_mixed_with_what_other_keys_cost(tuning: Searching) -> None:
    """Twice the best rate was tried with a worse batch size alone: what it costs is not known."""
    model = tuned(tuning(), valley(0.01)).models[0]
    some = model.trials[0]
    points: list[tuple[Point, float]] = [
        ({"learning_rate": 0.02, "batch_size": 2}, 3.8),
        ({"learning_rate": 0.01, "batch_size": 2}, 3.9),
        ({"learning_rate": 0.04, "batch_size": 4}, 3.95),
    ]
    trials = [dataclasses.replace(some, point=point, loss=loss) for point, loss in points]
    assert cost_of_rate(trials[0], trials, 0.5) == pytest.approx(0.1)
    assert cost_of_rate(trials[0], trials, 2.0) is None


def test_the_least_that_a_key_can_be_is_no_edge(tuning: Searching) -> None:
    space = ("learning_rate: [0.004, 0.01, 0.025]", "batch_size: [1, 2], weight_decay: [0.0, 0.1]")
    result = tuned(
        tuning(space, ("trials: 3", "trials: 4")), lambda pretrain, width: pretrain.batch_size + pretrain.weight_decay
    )
    for model in result.models:
        assert best(model) == {"batch_size": 1, "weight_decay": 0.0}
        assert model.at_edge == []
        assert model.halved is None


@pytest.mark.parametrize(("at", "found"), [(0.0635, 0.0625), (0.0016, 0.0016)])
def test_another_round_goes_on_beyond_the_edge(tuning: Searching, at: float, found: float) -> None:
    rounds = ("trials: 3\n  rounds: 1", "trials: 6\n  rounds: 6")
    schedules = ("0.025]}", "0.025], schedule: [cosine, wsd]}")
    result = tuned(tuning(rounds, schedules), valley(at))
    for model in result.models:
        assert len(model.trials) == 6
        assert best(model)["learning_rate"] == found
        assert model.at_edge == []


def test_rounds_share_the_trials_and_none_repeats_a_point(tuning: Searching) -> None:
    result = tuned(tuning(RATES, EIGHT, BATCHES), lambda pretrain, width: -math.log(pretrain.batch_size))
    for model in result.models:
        assert set(Counter(trial.cell for trial in model.trials).values()) == {1}
        assert len(model.trials) == 8
        assert best(model)["batch_size"] == 16, "one choice beyond those of the space, as the first round asked"
        assert "batch_size" in model.at_edge


def test_keys_that_the_optimizer_does_not_read_make_no_points_of_their_own(tuning: Searching) -> None:
    space = "space: {optimizer: [adamw, muon], matrix_learning_rate: [0.01, 0.02], learning_rate: [0.004, 0.01]}"
    study = tuning(("space: {learning_rate: [0.004, 0.01, 0.025]}", space), ("trials: 3", "trials: 6"))
    result = tuned(study, lambda pretrain, width: 3 + (pretrain.matrix_learning_rate or 0))
    for model in result.models:
        points = [trial.point for trial in model.trials]
        assert sum(point["optimizer"] == "adamw" for point in points) == 2
        assert all(("matrix_learning_rate" in point) == (point["optimizer"] == "muon") for point in points)
        assert best(model)["optimizer"] == "adamw"
    recipe = pretraining(loaded_with_recipes(), cells(load_study())[0])
    assert (recipe.optimizer, recipe.matrix_learning_rate) == ("adamw", None)


def loaded_with_recipes() -> Study:
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(f"include: {RECIPES}\n{text}", encoding="utf-8")
    return load_study()


def test_recipes_are_included_planned_and_change_no_tuning(tuning: Searching) -> None:
    std = (": [0.004, 0.01, 0.025]", ": [0.004, 0.01, 0.025], initialization_std: [0.01, 0.02]")
    groups = ("[vanilla-s, block-s-4-base]", "[[vanilla-s, vanilla-m], block-s-4-base]")
    first = tuned(tuning(groups, std, ("trials: 3", "trials: 4")), valley(0.005))
    study = loaded_with_recipes()
    vanilla, shared, block = (study.recipes[name] for name in ("vanilla-s", "vanilla-m", "block-s-4-base"))
    assert vanilla.learning_rate == block.learning_rate == 0.004
    assert vanilla.tuning is not None
    assert (vanilla.tuning.status, vanilla.tuning.of, vanilla.tuning.tokens) == ("tuned", ["vanilla-s"], 2560)
    assert vanilla.tuning.trials == 4
    assert vanilla.tuning.at_edge == first.models[0].at_edge
    assert shared.tuning is not None
    assert (shared.tuning.status, shared.tuning.of) == ("shared", ["vanilla-s"])
    assert shared.learning_rate == 0.004
    planned = {entry.cell: entry for entry in plan(study)}
    text = io.StringIO()
    print_plan(list(planned.values()), text)
    assert "vanilla-s-0: learning_rate 0.004, initialization.std 0.0" in text.getvalue()
    assert "(recipes.vanilla-s, tuned on 2,560 tokens, 4 trials" in text.getvalue()
    assert "(recipes.vanilla-m, shared from vanilla-s on 2,560 tokens" in text.getvalue()
    assert not planned["vanilla-l-0"].recipe
    again = tune_worker(study).save()
    assert [model.trials for model in again.models] == [model.trials for model in first.models]


def planned_recipes(study: Study) -> str:
    text = io.StringIO()
    print_plan(plan(study), text)
    return text.getvalue()


OTHER_KEYS = [
    ("  batch_size: 8", "  weight_decay: 0.0\n  batch_size: 8"),
    ("  batch_size: 8", "  schedule: wsd\n  batch_size: 8"),
    ("  s: {layers: 2, width: 32}", "  s: {layers: 3, width: 32}"),
    ("  s: {layers: 2, width: 32}", "  s: {layers: 2, width: 32, pretrain: {gradient_clip: 2.0}}"),
]
LENGTH = [("tokens: 5120", "tokens: 7680"), ("validate_every: 10", "validate_every: 5")]


def test_a_recipe_is_no_longer_just_tuned_once_the_model_or_another_key_has_changed(tuning: Searching) -> None:
    groups = ("[vanilla-s, block-s-4-base]", "[[vanilla-s, vanilla-m], block-s-4-base]")
    tuned(tuning(groups), valley(0.01))
    assert "with other keys" not in planned_recipes(loaded_with_recipes())
    text, recipes = (path.read_text(encoding="utf-8") for path in (paths.PARAMS, RECIPES))
    assert "with other keys" not in planned_recipes(edited(text, *LENGTH))
    for edit in OTHER_KEYS:
        changed = planned_recipes(edited(text, edit))
        assert "(recipes.vanilla-s, tuned with other keys on 2,560 tokens, 3 trials" in changed
        shared = "" if "  s: " in edit[0] else "with other keys "
        assert f"(recipes.vanilla-m, shared {shared}from vanilla-s on 2,560 tokens" in changed
    study = edited(text)
    RECIPES.write_text(recipes.replace("learning_rate: 0.01", "learning_rate: 0.02"), encoding="utf-8")
    assert "(recipes.vanilla-s, tuned with other keys on" in planned_recipes(load_study())
    without = [line for line in recipes.splitlines() if "keys:" not in line]
    RECIPES.write_text("\n".join(without), encoding="utf-8")
    assert planned_recipes(load_study()) == planned_recipes(study)


def edited(text: str, *edits: tuple[str, str]) -> Study:
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    paths.PARAMS.write_text(text, encoding="utf-8")
    return load_study()


@pytest.mark.usefixtures("mlflow_database")
def test_a_damaged_file_of_recipes_is_one_line_and_the_command_writes_it_anew(
    tuning: Searching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(tuning(), valley(0.01))
    study = loaded_with_recipes()
    whole = RECIPES.read_text(encoding="utf-8")
    cut = {"in a line": whole[: whole.index("[vanilla-s]") + 3], "between lines": whole[: whole.index("      of:")]}
    for damage in (None, *cut.values(), "stages: {report: {cmd: echo}}\n", "- a list\n"):
        RECIPES.unlink() if damage is None else RECIPES.write_text(damage, encoding="utf-8")
        with pytest.raises(UserError) as refused:
            load_study()
        assert str(refused.value).endswith("; `python -m pipeline tune` writes tune/recipes.yaml anew")
        assert "\n" not in str(refused.value)
        assert load_for_tuning() == dataclasses.replace(study, recipes={})
    monkeypatch.setattr("sys.argv", ["pipeline", "tune"])
    main()
    assert "tune/recipes.yaml is left out and written anew (" in capsys.readouterr().err
    assert RECIPES.read_text(encoding="utf-8") == whole
    assert load_study() == study


def test_another_mistake_of_the_study_is_not_blamed_on_the_recipes(
    tuning: Searching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(tuning(), valley(0.01))
    loaded_with_recipes()
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("batch_size: 8", "batch_size: 0"), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["pipeline", "tune"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: params.yaml: pretrain.batch_size: 0 is wrong; it must be greater than 0\n"


def test_a_power_law_predicts_the_recipes_of_other_sizes(tuning: Searching) -> None:
    def law(pretrain: Pretrain, width: int) -> float:
        return math.log2(pretrain.learning_rate * width / 0.32) ** 2

    models = ("[vanilla-s, block-s-4-base]", "[vanilla-s, vanilla-m, vanilla-l]\n  predict: [vanilla-xl]")
    rates = ("[0.004, 0.01, 0.025]", "[2.5e-3, 5.0e-3, 1.0e-2]")
    result = tuned(tuning(models, rates), law)
    assert [best(model)["learning_rate"] for model in result.models] == [1e-2, 5e-3, 2.5e-3]
    (predicted,) = result.predicted
    low, high = predicted.intervals["learning_rate"]
    assert predicted.of == ["vanilla-s", "vanilla-m", "vanilla-l"]
    assert predicted.point["learning_rate"] == pytest.approx(1.25e-3, rel=0.05)
    assert low <= 1.25e-3 <= high
    recipe = loaded_with_recipes().recipes["vanilla-xl"]
    assert recipe.tuning is not None
    assert recipe.tuning.status == "predicted"
    assert recipe.tuning.intervals == predicted.intervals


def test_two_sizes_predict_without_an_interval(tuning: Searching) -> None:
    models = ("[vanilla-s, block-s-4-base]", "[vanilla-s, vanilla-m]\n  predict: [vanilla-xl]")
    result = tuned(tuning(models), valley(0.01))
    (predicted,) = result.predicted
    assert predicted.point == {"learning_rate": 0.01}
    assert predicted.intervals == {}
    assert "two sizes: no interval" in RECIPES.read_text()


def test_trials_train_and_leave_a_table_a_record_and_curves(tuning: Searching) -> None:
    worker = tune_worker(tuning())
    worker.run()
    result = worker.save()
    assert read_tuning() == result
    rows = list(csv.DictReader(TUNED_TABLE.open(encoding="utf-8")))
    assert Counter(row["model"] for row in rows) == {"vanilla-s": 3, "block-s-4-base": 3}
    assert {float(row["learning_rate"]) for row in rows} == {0.004, 0.01, 0.025}
    trials = [trial for model in result.models for trial in model.trials]
    assert all((paths.checkpoint(trial.cell) / "model.safetensors").exists() for trial in trials)
    assert len({trial.loss for trial in trials}) == 6, "each rate and model has a loss of its own"
    (drawing,) = draw_tuning(result, paths.TUNE)
    assert "learning rate" in (paths.TUNE / f"{drawing.name}.svg").read_text(encoding="utf-8").lower()


def test_trials_of_all_batch_sizes_validate_eight_times_after_the_same_tokens(tuning: Searching) -> None:
    """The study's 1,000 steps between validations are more than a trial takes; that of the loss stays as it was."""
    longer, seldom = ("tokens: 2560", "tokens: 5120"), ("validate_every: 10", "validate_every: 1000")
    study = tuning(("{learning_rate: [0.004, 0.01, 0.025]}", "{batch_size: [2, 4, 8]}"), longer, seldom)
    model, found = tuned_cell(study, "vanilla-s"), {}
    for size in (2, 4, 8):
        trial, cell = trial_study(study, model, {"batch_size": size})
        rows: list[Row] = []
        result = pretrain(trial, cell, rows.append)
        assert result is not None
        found[size] = [row.tokens for row in rows if row.validation_loss is not None]
    once = dataclasses.replace(trial, pretrain=dataclasses.replace(trial.pretrain, validate_every=1000))
    shutil.rmtree(paths.checkpoint(cell.name))
    again = pretrain(once, cell)
    assert again is not None
    assert again.validation_loss == result.validation_loss
    assert found[2] == found[4] == found[8] == [512 * count for count in range(1, 11)]


def test_a_study_that_validates_more_often_does_so_in_its_trials(tuning: Searching) -> None:
    study = tuning(("validate_every: 10", "validate_every: 3"), ("tokens: 2560", "tokens: 256000"))
    trial, _ = trial_study(study, tuned_cell(study, "vanilla-s"), {"learning_rate": 0.01})
    assert trial.pretrain.validate_every == 3


def test_unfinished_models_have_no_recipe_yet(tuning: Searching) -> None:
    with pytest.raises(KeyboardInterrupt):
        tuned(tuning(), interrupted_at(0.01))
    assert "recipes: {}" in RECIPES.read_text(encoding="utf-8")
    assert "# vanilla-s: 1 of 3 trials finished" in RECIPES.read_text(encoding="utf-8")
    loaded_with_recipes()


def interrupted_at(start: float) -> Loss:
    """Ctrl-C in the first trial of another learning rate than the recipe's own."""

    def loss(pretrain: Pretrain, width: int) -> float:
        if pretrain.learning_rate != start:
            raise KeyboardInterrupt
        return 3.0

    return loss


def test_a_tuning_without_a_finished_trial_leaves_the_recipes_of_another_as_they_are(
    tuning: Searching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a clone has the committed recipes and no storage, or `tune.tokens` has changed."""
    tuned(tuning(), valley(0.01))
    files = {path: path.read_bytes() for path in (RECIPES, TUNED_TABLE, TUNED)}
    tuning(("trials: 3\n  rounds: 1\n  tokens: 2560", "trials: 3\n  rounds: 1\n  tokens: 5120"))
    monkeypatch.setattr("sys.argv", ["pipeline", "tune", "--show"])
    main()
    assert "vanilla-s: 0 of 3 trials finished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in files} == files


def test_the_recipe_of_a_killed_worker_is_tried_again_before_points_beyond_an_edge(
    tuning: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is taken for dead once all other trials are finished; four points at edges were left open before."""
    study = tuning(("[vanilla-s, block-s-4-base]", "[vanilla-s]"), ("trials: 3\n  rounds: 1", "trials: 4\n  rounds: 4"),
                   BATCHES)  # fmt: skip
    (ledger,) = tune_worker(study).ledgers
    killed = ledger.claim()
    assert killed is not None
    own = ledger.problem.point(killed.params)
    monkeypatch.setattr(Watch, "stale", lambda self, trial: len(ledger.finished()) == 3)
    (model,) = tuned(study, valley(4e-3)).models
    assert [trial.point for trial in model.trials].count(own) == 1
    assert len(model.trials) == 4


def test_a_longer_tuning_goes_on_and_a_changed_one_begins_anew(tuning: Searching) -> None:
    first = tuned(tuning(RATES), valley(0.01))
    longer = tuned(tuning(RATES, ("trials: 3", "trials: 5")), valley(0.01))
    assert [model.trials[:3] for model in longer.models] == [model.trials for model in first.models]
    changed = tuned(tuning(RATES, ("tokens: 2560", "tokens: 5120")), valley(0.01))
    assert {model.identity for model in changed.models}.isdisjoint(model.identity for model in first.models)
