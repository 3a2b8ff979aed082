"""A mutant of a study either plans and means what it says, or is refused at once by one clear line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, Phase, given, settings
from omegaconf import OmegaConf

from pipeline.base.errors import UserError
from pipeline.commands.main import main
from pipeline.commands.plan import plan
from pipeline.data import describe_inputs
from pipeline.study import cells, check_dvc_keys, load_study
from pipeline.study.load import DVC_KEYS
from tests.study.mutants import BASES, Mutant, mutants

SECONDS = 2  # of processor time: nothing goes on for ever
SEEDED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Trial:
    """Reads mutants as `python -m pipeline plan` and the stage `check` do, and counts what became of them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "params.yaml"
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def run(self, mutant: Mutant) -> None:
        self.path.write_bytes(mutant[1])
        started = time.process_time()
        try:
            study = load_study(self.path)
            names = [planned.cell for planned in plan(study)]
            describe_inputs(study)
        except UserError as error:
            self.outcomes["refused"] += 1
            assert_clear(str(error))
        else:
            self.outcomes["planned"] += 1
            # A reference such as ${pretrain.tokens} means what it names.
            assert_meant(study, OmegaConf.to_container(OmegaConf.create(load_yaml(str(self.path))), resolve=True))
            assert_safe(names)
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        assert seconds < SECONDS, mutant[0]

    def fuzz(self, count: int) -> None:
        @settings(SEEDED, max_examples=count)
        @given(mutants())
        def run(mutant: Mutant) -> None:
            self.run(mutant)

        run()
        print(f"\n{sum(self.outcomes.values())} mutants: {dict(self.outcomes)}; slowest {self.slowest:.2f} s")


def assert_clear(message: str) -> None:
    """One printable line: where, what, and what would be right."""
    assert message.isprintable()
    assert len(message) < 1000
    assert ": " in message


def assert_meant(typed: Any, written: Any) -> None:
    """Every value is the one that DVC reads in the file, of the same type; a whole number may stand for a float."""
    if dataclasses.is_dataclass(typed):
        assert isinstance(written, dict)
        for key, value in written.items():
            assert_meant(getattr(typed, key), value)
    elif isinstance(typed, dict):
        assert list(typed) == list(written)
        for key, value in written.items():
            assert_meant(typed[key], value)
    elif isinstance(typed, list):
        assert isinstance(written, list)
        assert len(typed) == len(written)
        for one, other in zip(typed, written, strict=True):
            assert_meant(one, other)
    else:
        assert typed == written
        assert type(typed) is type(written) or (type(typed), type(written)) == (float, int)
        assert not isinstance(typed, str) or ("${" not in typed and typed.isprintable())


def assert_safe(names: list[str]) -> None:
    """Each names a folder of its own inside another, on every disk."""
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name.replace("-", "").replace("_", "").isalnum()
        assert name.isascii()
        assert len(name) < 230


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.chdir(tmp_path)
    return Trial(tmp_path)


def test_a_mutant_means_what_it_says_or_is_refused(trial: Trial) -> None:
    trial.fuzz(100)  # about one in ten is planned, and a study more or less changes which
    assert trial.outcomes["planned"] > 5
    assert trial.outcomes["refused"] > 30


@pytest.mark.slow
def test_thousands_of_mutants_mean_what_they_say_or_are_refused(trial: Trial) -> None:
    trial.fuzz(5000)
    assert trial.outcomes["planned"] > 500


def accepted(count: int) -> list[bytes]:
    """Mutants of params.yaml that plan."""
    found: list[bytes] = []

    @settings(SEEDED, max_examples=20 * count)
    @given(mutants(BASES[:1]))
    def collect(mutant: Mutant) -> None:
        Path("params.yaml").write_bytes(mutant[1])
        try:
            load_study()
            check_dvc_keys()
        except UserError:
            return
        found.append(mutant[1])

    collect()
    return found[:count]


def assert_dvc_finds_the_same_cells(root: Path, texts: list[bytes]) -> None:
    shutil.copy(root / "dvc.yaml", "dvc.yaml")
    Repo.init(no_scm=True).close()
    for text in texts:
        Path("params.yaml").write_bytes(text)
        with Repo() as repo:
            stages = [stage.addressing.partition("@") for stage in repo.index.stages]
        for name in ("pretrain", "evaluate", "benchmark"):
            found = [cell for stage, _, cell in stages if stage.startswith(name)]
            assert sorted(found) == sorted(cell.name for cell in cells(load_study()) if name in cell.stages)


def test_dvc_finds_the_same_cells(trial: Trial, root: Path) -> None:
    texts = accepted(2)
    assert len(texts) == 2
    assert_dvc_finds_the_same_cells(root, texts)


def test_dvc_finds_the_cells_of_budgets(trial: Trial, root: Path) -> None:
    values = load_yaml(str(root / "params.yaml"))
    values["pretrain"] |= {"schedule": "wsd", "budgets": [500_000, 250_000]}
    values["variants"]["up"] = {"init": {"method": "partition"}, "embedder": {"kind": "projection", "width": 64}}
    values["grid"]["uptrained"] = {"source": ["vanilla-s-0"], "block_length": [4], "variant": ["up"]}
    values["grid"]["seed"] = [0, 1]
    assert_dvc_finds_the_same_cells(root, [json.dumps(values).encode()])
    assert len(cells(load_study())) == 18 * 3


@pytest.mark.slow
def test_dvc_finds_the_same_cells_in_hundreds_of_mutants(trial: Trial, root: Path) -> None:
    texts = accepted(200)
    assert len(texts) == 200
    assert_dvc_finds_the_same_cells(root, texts)


COMMANDS = {
    "a huge grid": lambda text: text.replace("seed: [0]", f"seed: {list(range(1200))}"),
    "a million cells": lambda text: text.replace("size: [s, m]", f"size: {['s'] * 100}").replace(
        "seed: [0]", f"seed: {list(range(900))}"
    ),
    "a billion layers": lambda text: text.replace("layers: 2", "layers: 1000000000"),
    "a million wide": lambda text: text.replace("width: 64", "width: 1000000, heads: 1"),
    "5,000 digits": lambda text: text.replace("tokens: 1000000", "tokens: " + "9" * 5000),
    "aliases of aliases": lambda text: text + "a0: &a0 [1]\n" + "".join(
        f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]\n" for level in range(1, 40)
    ),
    "open brackets": lambda text: text.replace("files: []", "files: " + "[" * 60_000),
    "the environment": lambda text: text.replace("name: sotu", "name: ${oc.env:HOME}"),
    "another command": lambda text: text.replace("name: sotu", "name: $(touch here)"),
    "code": lambda text: text.replace("name: sotu", "name: !!python/object/apply:os.system ['touch here']"),
    "a folder above": lambda text: text.replace("  s: {", "  ../s: {").replace("[s, m]", "[../s, m]"),
    "upper and lower case": lambda text: text.replace("  m: {", "  S: {").replace("[s, m]", "[s]"),
    "not UTF-8": lambda text: text.replace("sotu", "sot\udcff"),
}  # fmt: skip


def planned_apart(root: Path) -> tuple[int, str, str]:
    """Status, output and errors of `python -m pipeline plan` as a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", "plan"],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < SECONDS
    return ended.returncode, ended.stdout, ended.stderr


def planned_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The same of the command in this process, which has imported it already."""
    monkeypatch.setattr("sys.argv", ["pipeline", "plan"])
    started, status = time.process_time(), 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    assert time.process_time() - started < SECONDS
    return status, *capsys.readouterr()


def assert_ended_well(folder: Path, status: int, output: str, errors: str) -> None:
    """The command printed the plan, or one line; nothing else is left in the folder."""
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]
    if status == 0:
        assert errors == ""
        assert "training FLOPs" in output
    else:
        assert (status, output) == (1, "")
        assert errors.startswith("error: ")
        assert errors.endswith("\n")
        assert_clear(errors[:-1])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_ends_well(
    trial: Trial, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    changed = COMMANDS[name](text)
    assert changed != text
    Path("params.yaml").write_bytes(changed.encode("utf-8", "surrogateescape"))
    assert_ended_well(Path(), *planned_here(monkeypatch, capsys))


def test_the_process_ends_as_the_command_does(trial: Trial, root: Path) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(COMMANDS["a million cells"](text), encoding="utf-8")
    assert_ended_well(Path(), *planned_apart(root))


@pytest.mark.slow
def test_the_command_ends_well_for_many_mutants(trial: Trial, tmp_path: Path, root: Path) -> None:
    @settings(SEEDED, max_examples=100)
    @given(mutants())
    def run(mutant: Mutant) -> None:
        Path("params.yaml").write_bytes(mutant[1])
        assert_ended_well(tmp_path, *planned_apart(root))

    run()


def test_the_keys_that_dvc_reads_are_asked_for(trial: Trial, root: Path) -> None:
    """A study that leaves one of them to its default would end in DVC's own message, before any stage."""
    dvc = (root / "dvc.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{((?!item|key)[\w.]+)\}", dvc)) == set(DVC_KEYS)
    for key in DVC_KEYS:
        values = load_yaml(str(root / "params.yaml"))
        *sections, last = key.split(".")
        del reduce(getitem, sections, values)[last]
        Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")
        with pytest.raises(UserError, match=rf"^params.yaml: {key}: this key is missing"):
            check_dvc_keys()
