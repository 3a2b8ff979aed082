"""The profile of a step of generation."""

from __future__ import annotations

import sys

import pytest

from pipeline.benchmark import profile
from pipeline.study import find_cell, load_study
from tests.conftest import ROOT

STUDY, SMALL = str(ROOT / "params.yaml"), "tokenize.vocabulary=300"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["profile", *arguments, "--params", STUDY, "--set", SMALL])
    profile.main()


def test_the_costliest_operations_come_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "block-s-4-base-0", "--batch", "2", "--prompt", "8", "--rows", "5")
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.startswith("block-s-4-base-0: ")
    assert heading.endswith("ms per step, 2 samples, 8 tokens before")
    spent = [float(row.split(" us ")[0].replace(",", "")) for row in rows]
    assert len(spent) == 5
    assert spent == sorted(spent, reverse=True)


def test_a_step_is_a_block_of_tokens() -> None:
    study, chosen = load_study(STUDY, [SMALL]), {}
    for name in ("vanilla-s-0", "block-s-4-base-0"):
        step = profile.measure(study, find_cell(study, name), batch=2, prompt=8, steps=2)
        assert step.milliseconds > 0
        chosen[name] = sum(operation.calls for operation in step.operations if operation.name == "aten::argmax")
    assert chosen == {"vanilla-s-0": 1, "block-s-4-base-0": 4}


def test_a_prefill_reads_the_prompts_and_chooses_a_block(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(STUDY, [SMALL])
    profiled = profile.measure(study, find_cell(study, "block-s-4-base-0"), 2, prompt=64, steps=2, part="prefill")
    assert sum(each.calls for each in profiled.operations if each.name == "aten::argmax") == 4
    run(monkeypatch, "vanilla-s-0", "--prefill", "--prompt", "8")
    assert "ms per prefill, 1 samples, 8 tokens before" in capsys.readouterr().out


def test_a_batch_of_none_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "vanilla-s-0", "--batch", "0")
    assert capsys.readouterr().err == "error: --batch 0 is wrong; it must be 1 or more\n"
