"""Two of everything at the same time. Two searches on one storage: tests/search/test_sharing.py."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline import tracking
from tests.faults.stages import BLOCK, VANILLA, leftovers, repro, start, whole_results


@pytest.mark.slow
def test_two_repros_at_once(repository: Path) -> None:
    """DVC refuses whichever meets a file that the other works on, even both; the next one does what is missing."""
    both = [start("dvc", "repro", PYTHONPATH=str(repository))]
    time.sleep(1)
    both.append(start("dvc", "repro", PYTHONPATH=str(repository)))
    for process in both:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0 or "rwlock" in errors or "busy" in errors, errors
        whole_results()
    repro(repository)
    assert "stages.pretrain" not in repro(repository)
    assert len(whole_results()) == 6
    assert leftovers(repository / "results") == []
    one_run_a_cell()


@pytest.mark.slow
def test_four_cells_that_start_together_on_a_fresh_database(repository: Path) -> None:
    text = Path("params.yaml").read_text().replace("seed: [0]", "seed: [0, 1]")
    Path("params.yaml").write_text(text)
    for stage in ("stages.corpus", "stages.tokenize"):
        assert start(stage).wait(120) == 0
    cells = [VANILLA, BLOCK, "vanilla-s-1", "block-s-4-base-1"]
    processes = [start("stages.pretrain", cell) for cell in cells]
    ended = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ended
    assert not any("warning" in errors for errors in ended), ended
    one_run_a_cell(cells)


@pytest.mark.slow
def test_the_queue_of_dvc_with_two_workers(repository: Path) -> None:
    """Three experiments in copies of the repository: each is whole, and its runs outlive the copy."""
    rates = {"one": "0.01", "two": "0.02", "three": "0.03"}
    for name, rate in rates.items():
        dvc(repository, "exp", "run", "--queue", "--name", name, "-S", f"pretrain.learning_rate={rate}")
    workers = start("dvc", "queue", "start", "--jobs", "2", PYTHONPATH=str(repository))
    deadline = time.monotonic() + 580
    while {"Queued", "Running"} & set((status := dvc(repository, "queue", "status")).split()):
        assert time.monotonic() < deadline, status
        time.sleep(2)
    assert status.count("Success") == 3, status
    workers.communicate(timeout=120)
    one_run_a_cell([VANILLA, BLOCK] * 3)
    for name, rate in rates.items():
        dvc(repository, "exp", "apply", name)
        assert f"learning_rate: {rate}" in Path("params.yaml").read_text()
        assert verified() in ([], ["outputs of check"]), "what DVC does not keep is made anew by each run"
        assert len(whole_results()) == 6
        assert leftovers(repository / "results") == []
        assert all(tracking.sync_cell("tiny", cell) for cell in (VANILLA, BLOCK))
        one_run_a_cell([VANILLA, BLOCK] * 3)


def verified() -> list[str]:
    """The checks of `verify` that fail."""
    output, _ = start("pipeline", "verify").communicate(timeout=120)
    return [line.removeprefix("FAILED").strip() for line in output.splitlines() if line.startswith("FAILED")]


def dvc(repository: Path, *arguments: str) -> str:
    process = start("dvc", *arguments, PYTHONPATH=str(repository))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def one_run_a_cell(cells: list[str] | None = None) -> None:
    client = tracking.client()
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
    assert sorted(run.data.tags["cell"] for run in runs) == sorted(cells or [VANILLA, BLOCK])
    assert all(run.info.status == "FINISHED" for run in runs)
