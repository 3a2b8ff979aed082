"""The profiler's report."""

from __future__ import annotations

import json
import re
import sys

import pytest

from pipeline.base import paths
from pipeline.study import Study
from pipeline.training import profile


def test_every_phase_and_the_costliest_operations_are_listed(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["profile", "block-s-4-base-0", "--steps", "1", "--rows", "40"])
    profile.main()
    shown = capsys.readouterr().out
    times = [float(re.search(rf"{phase} +([\d.]+) ms", shown)[1]) for phase in profile.PHASES]  # type: ignore[index]
    total = float(re.search(r"([\d.]+) ms per step", shown)[1])  # type: ignore[index]
    assert sum(times) == pytest.approx(total, abs=0.05)
    assert min(times) > 0
    assert "aten::mm" in shown


@pytest.mark.parametrize("name", ["vanilla-s-0", "block-s-4-base-0"])
def test_speed_is_measured_without_a_corpus(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Study
) -> None:
    monkeypatch.setattr("pipeline.base.paths.TOKENS", paths.TOKENS / "absent")
    monkeypatch.setattr(sys, "argv", ["profile", name, "--steps", "2", "--random-tokens", "--json"])
    profile.main()
    measured = json.loads(capsys.readouterr().out)
    assert measured["cell"] == name
    assert 0 < measured["causal_utilization"] < measured["utilization"]
    assert measured["tokens_per_second"] > 0
    assert set(measured["milliseconds"]) == set(profile.PHASES)
    assert measured["micro_batch"] == measured["batch_size"]
