"""What stages took on this machine, and what follows for those to come."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from pipeline.commands.plan import plan, print_plan, time_to_go
from pipeline.execution.estimate import Left, Rates, Work, time_of
from pipeline.execution.timings import TIMES, note_time, rates_here
from pipeline.study import load_study


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params_text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params_text, encoding="utf-8")


def test_rates_are_of_this_machine_and_of_the_last_time_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rates_here() == Rates()
    note_time("pretrain-vanilla@vanilla-s-0", 100.0, 1e9)
    note_time("pretrain-vanilla@vanilla-s-0", 20.0, 1e9)
    note_time("pretrain-block@block-s-4-base-0", 10.0, 2e9)
    note_time("pretrain-vanilla@vanilla-m-0", 5.0, 0.0)  # its weights were there already
    note_time("evaluate-block@block-s-4-base-0", 6.0, 0.0)
    note_time("evaluate-vanilla@vanilla-s-0", 8.0, 0.0)
    note_time("check", 3.0, 0.0)
    assert rates_here() == Rates(flop=1e-8, evaluate=7.0)
    with TIMES.open("a") as opened:
        opened.write('{"stage": "evaluate-vanilla@vanilla-s-0", "mach')
    assert rates_here() == Rates(flop=1e-8, evaluate=7.0)
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert rates_here() == Rates()


def test_the_time_of_stages_one_after_the_other() -> None:
    rates = Rates(flop=1e-8, evaluate=7.0)
    assert time_of(Work(3e9, [0.0, 0.0]), rates) == Left(30.0 + 14.0, at_least=False)
    assert time_of(Work(3e9, [0.0], [0.0]), rates) == Left(30.0 + 7.0, at_least=True)
    assert str(time_of(Work(3e9, [0.0], [0.0]), rates)) == "more than 37 s"
    assert time_of(Work(3e9), Rates(evaluate=7.0)) is None
    assert time_of(Work(0.0), Rates()) == Left(0.0, at_least=False)


def test_the_plan_has_minutes_once_a_cell_has_run(capsys: pytest.CaptureFixture[str]) -> None:
    study = load_study()
    before = plan(study)
    assert {entry.time for entry in before} == {None}
    print_plan(before, sys.stdout)
    assert "; how long that takes is known once a cell has run on this machine;" in capsys.readouterr().out
    note_time("pretrain-vanilla@vanilla-s-0", before[0].training_flops / 1e9, before[0].training_flops)
    note_time("evaluate-vanilla@vanilla-s-0", 60.0, 0.0)
    note_time("benchmark-vanilla@vanilla-s-0", 30.0, 0.0)
    after = plan(study)
    for entry in after:
        assert entry.time is not None
        assert entry.time.seconds == pytest.approx(entry.training_flops / 1e9 + 90)
    left = time_to_go(after)
    assert left is not None
    assert left.seconds == pytest.approx(sum(entry.time.seconds for entry in after if entry.time))
    print_plan(after, sys.stdout)
    header, first, *_, last = capsys.readouterr().out.splitlines()
    assert last.endswith(f" training FLOPs to go ({left} on this machine); checkpoints in checkpoints/CELL")
    assert first[: header.index("minutes") + len("minutes")].split()[-1] == f"{after[0].time.seconds / 60:.3g}"
