"""A search that really trains, in one process: what counts, what is pruned, and what it leaves."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pipeline.analysis.figures.search import draw_search
from pipeline.base import paths
from pipeline.commands.plan import plan
from pipeline.results.search import TABLE, VARIANTS, SearchResult, TrialResult, read_search
from pipeline.search import ledger, worker
from pipeline.search.allocation import search_worker
from pipeline.search.trial import run_trial
from pipeline.study import Study, load_study
from tests.search.conftest import Searching

ROOFLINE = ("objectives: [loss, tokens_per_second]", "objectives: [tokens_per_second]\n  throughput: roofline")
LOSS = ("objectives: [loss, tokens_per_second]", "objectives: [loss]")


def search(study: Study) -> SearchResult:
    one = search_worker(study)
    one.run()
    return one.save()


def search_in_journal(study: Study) -> SearchResult:
    """The search, with a storage that costs less to read than a database."""
    assert study.search is not None
    return search(dataclasses.replace(study, search=dataclasses.replace(study.search, storage="search/journal")))


def test_trials_are_trained_measured_exported_and_drawn(searching: Searching) -> None:
    study = searching()
    result = search(study)
    assert read_search() == result
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    assert result.trials[0].cell == "block-s-4-base_b1_t1_tw32_p2-0", "the known point comes first"
    rows = list(csv.DictReader(TABLE.open(encoding="utf-8")))
    assert [float(row["loss"]) for row in rows] == [trial.loss for trial in result.trials]
    for trial in result.trials:
        assert (paths.checkpoint(trial.cell) / "model.safetensors").exists()
        assert trial.tokens_per_second is not None
        assert trial.tokens_per_second > 0
    best = [trial for trial in result.trials if trial.number in result.best]
    for trial in result.trials:
        beaten = any(dominates(other, trial) for other in result.trials)
        assert (trial in best) != beaten
    drawn = {drawing.name for drawing in draw_search(study.name, Path("figures"))}
    assert drawn == {"search_front", "search_history_loss", "search_history_tokens_per_second"}
    assert draw_search("another", Path("figures")) == []


def dominates(one: TrialResult, other: TrialResult) -> bool:
    pairs = [(one.loss, other.loss), (-one.objective("tokens_per_second"), -other.objective("tokens_per_second"))]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def test_a_pasted_variant_is_the_trials_model(searching: Searching) -> None:
    base = ("base: {}", "base: {embedder: {kind: projection}, padding: false}")
    result = search_in_journal(searching(ROOFLINE, base))
    exported = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))["variants"]
    assert list(exported) == [trial.variant for trial in ranked(result)]
    edited = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    edited["variants"] |= exported
    edited["grid"]["block"] |= {"variant": list(exported), "block_length": [2, 4]}
    Path("params.yaml").write_text(yaml.safe_dump(edited, sort_keys=False), encoding="utf-8")
    planned = {entry.cell: entry for entry in plan(load_study())}
    for trial in ranked(result):
        assert planned[trial.cell].total_parameters == trial.total_parameters


def test_a_pasted_variant_has_the_trials_recipe(searching: Searching) -> None:
    recipe = "space: {learning_rate: [0.02, 0.03], initialization_std: [0.01, 0.03], "
    result = search_in_journal(searching(ROOFLINE, ("space: {", recipe), ("  enqueue: [{block_length: 4}]\n", "")))
    exported = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))["variants"]
    for trial in ranked(result):
        pretrain = exported[trial.variant]["pretrain"]
        assert pretrain["learning_rate"] == trial.point["learning_rate"]
        assert pretrain["initialization"] == {"std": trial.point["initialization_std"]}


def ranked(result: SearchResult) -> list[TrialResult]:
    return [trial for number in result.best for trial in result.trials if trial.number == number]


def test_infeasible_and_repeated_points_do_not_count(searching: Searching, capsys: pytest.CaptureFixture[str]) -> None:
    """More trials wanted than the space has feasible points: each of those is tried once, and the search ends."""
    space = ("token_layers: [1, 2],\n          token_width: [32, 64], prefix_length: [1, 2]", "token_width: [32, 64]")
    limit = ("  tokens: 2560", "  tokens: 2560\n  constraints: {total_parameters: 60000}")
    study = searching(ROOFLINE, space, limit, ("trials: 3", "trials: 20"))
    result = search_in_journal(study)
    counted = Counter(tuple(trial.point.items()) for trial in result.trials)
    assert set(counted.values()) == {1}
    assert 0 < len(counted) < 8
    assert all(trial.total_parameters <= 60000 for trial in result.trials)
    assert result.infeasible > 0
    assert "every feasible point of search.space has been tried" in capsys.readouterr().err
    assert not Path("checkpoints").exists(), "speed alone needs no training"


def test_a_space_without_a_feasible_point_is_an_error(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "DRAWS", 500)  # of the 32 points
    study = searching(("  tokens: 2560", "  tokens: 2560\n  constraints: {total_parameters: 10}"))
    with pytest.raises(ValueError, match=r"search.constraints: no point of search.space fulfils them"):
        search_in_journal(study)


def test_loss_alone_stops_a_bad_trial_early(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STARTUP", 1)
    known = "enqueue: [{block_length: 2, token_width: 64}, {block_length: 4, token_width: 4}]"
    study = searching(LOSS, ("enqueue: [{block_length: 4}]", known), ("tokens: 2560", "tokens: 5120"),
                      ("trials: 3", "trials: 2"), ("token_width: [32, 64]", "token_width: [4, 32, 64]"))  # fmt: skip
    result = search_in_journal(study)
    good, bad = result.trials
    assert result.best == [good.number]
    assert (good.state, bad.state) == ("complete", "pruned")
    assert bad.loss is not None
    assert good.loss is not None
    assert bad.loss > good.loss
    assert bad.tokens_per_second is None
    assert not paths.checkpoint(bad.cell).exists(), "half a training leaves no checkpoint"


def test_no_trial_is_stopped_in_its_warm_up_or_the_first_half_of_its_tokens(searching: Searching) -> None:
    """Of 20 steps, validated every second one."""
    often = ("validate_every: 10", "validate_every: 2"), ("tokens: 2560", "tokens: 5120")
    assert asked(searching(LOSS, *often)) == [2560, 3072, 3584, 4096, 4608, 5120]
    assert asked(searching(LOSS, *often, ("warmup_steps: 4", "warmup_steps: 14"))) == [4096, 4608, 5120]


def asked(study: Study) -> list[int]:
    """After how many tokens a trial's loss is compared."""
    problem, tokens = search_worker(study).ledgers[0].problem, []

    def prune(_: float, seen: int) -> bool:
        tokens.append(seen)
        return False

    run_trial(problem, problem.point(dict(problem.known([])[0])), prune, None)
    return tokens


def test_a_diverged_trial_counts_and_is_never_best(searching: Searching) -> None:
    result = search_in_journal(searching(("learning_rate: 0.01", "learning_rate: 1.0e+6"), ("trials: 3", "trials: 1")))
    assert [trial.state for trial in result.trials] == ["diverged"]
    assert result.best == []


def test_a_longer_search_goes_on_and_a_changed_one_begins_anew(searching: Searching) -> None:
    first = search_in_journal(searching(ROOFLINE))
    longer = search_in_journal(searching(ROOFLINE, ("trials: 3", "trials: 5")))
    assert longer.trials[:3] == first.trials
    assert len(longer.trials) == 5
    changed = search_in_journal(searching(ROOFLINE, ("tokens: 2560", "tokens: 5120")))
    assert changed.identity != first.identity
    assert len(changed.trials) == 3


def test_a_journal_file_holds_a_search_too(searching: Searching) -> None:
    result = search(searching(ROOFLINE, ("  tokens: 2560", "  tokens: 2560\n  storage: kept/search.journal")))
    assert len(result.trials) == 3
    assert Path("kept/search.journal").stat().st_size > 0
    assert not Path("search/study.db").exists()


def test_a_storage_that_does_not_open_is_one_clear_line(searching: Searching) -> None:
    study = searching(("  tokens: 2560", "  tokens: 2560\n  storage: nosuch://host/db"))
    with pytest.raises(ValueError, match=r"^search.storage: nosuch://host/db does not open: .*; it is a database's"):
        search_worker(study)
