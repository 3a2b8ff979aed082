"""README.md and docs/ are true: their commands run, their snippets load, and what they name exists.

Commands that only read run in the normal suite, on a tiny study that is finished; those that run stages are slow. A
command of neither kind is listed with its reason, and still must be one that the real program's parser takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from pipeline.commands import main as cli
from pipeline.study import cells, load_study
from pipeline.study.schema import Study
from tests.conftest import ROOT
from tests.documents import DOCUMENTS, FENCE, Command, commands, headings, links, plain, snippets, spans
from tests.training.conftest import WORDS

CELL = "block-m-4-base-0"
NOT_RUN = {
    r"make audit": "asks a service for known vulnerabilities",
    r"make ui|python -m pipeline ui": "does not end; test_the_ui_answers starts it",
    r"make (test|soak|check)|(python -m )?pytest|python -m tests": "these tests themselves",
    r"torchrun|srun": "several GPUs, and SLURM",
    r"python -m pipeline \w+ .*--(on slurm|status|cancel)": "asks a SLURM; tests/slurm starts one",
    r"python -m pipeline evaluate prefetch \w": "fetches from the hub; test_prefetch.py runs it on files",
    r"python -m pipeline.interop.gguf": "reads a model of 98 MB; interop/test_gguf.py makes a folder of it",
    r"python -m pipeline compare .*\.\./": "another study's folder; analysis/test_comparison.py makes one",
    r"dvc queue": "starts workers that outlive it",
    r"dvc gc": "asks before it deletes",
    r"dvc exp run --queue": "needs `dvc queue`",
    r"source ": "changes the shell",
}
MEASURED = "docs/results/"
"""Pages whose commands take a GPU for hours: they are parsed."""
FOLLOWED = "docs/moving.md"
"""A page of two machines: faults/test_another_machine.py follows it."""
RUNS_STAGES = (
    r"cd |dvc (repro|commit|exp (run|apply|branch))|make|python -m (pipeline (run|search|tune|study|tracking)|stages)"
)
VARIABLES = r"^(env -u \w+ |\w+=\S+ )"
STUDIES = [path.stem for path in sorted((ROOT / "studies").glob("*.yaml"))]
STUDY = """
name: tiny
corpus: {source: files, files: ["text/*.txt"], validation_fraction: 0.1, test_fraction: 0.1}
tokenize: {vocabulary: 300}
sizes:
  m: {layers: 2, width: 32}
  l: {layers: 2, width: 64}
variants:
  base: {}
grid:
  vanilla: {size: [m]}
  block: {size: [m, l], block_length: [4], variant: [base]}
  uptrained: {source: [], block_length: [], variant: []}
  seed: [0]
pretrained:
  pythia_160m: {path: elsewhere}
pretrain: {context_length: 64, tokens: 2048, budgets: [], batch_size: 4, learning_rate: 0.01, warmup_steps: 2}
evaluate: {tasks: [cloze], limit: 4, samples: 1, stride: 32}
benchmark:
  settings:
    decode_heavy: {prompt: 4, new_tokens: 4}
  batch_sizes: [2]
  repeats: 1
search:
  trials: 1
  size: m
  variant: base
  setting: decode_heavy
  space: {block_length: [2, 4]}
  tokens: 1024
tune:
  models: [vanilla-m]
  space: {learning_rate: [0.01, 0.02]}
  trials: 1
  rounds: 1
  tokens: 1024
hardware: {accelerator: cpu, checkpoint_every: 4, label: auto}
"""


def kind(command: Command) -> str:
    """``not run``, ``slow`` or ``fast``."""
    if command.document.startswith((MEASURED, FOLLOWED)) or any(re.match(pattern, command.text) for pattern in NOT_RUN):
        return "not run"
    return "slow" if re.match(RUNS_STAGES, re.sub(VARIABLES, "", command.text)) else "fast"


def examples() -> list[Command]:
    """The commands that the programs' own help shows."""
    listed = (each for group in cli.GROUPS.values() for each in group if isinstance(each, cli.Command))
    return [Command(f"{cli.PROGRAM} {each.name} --help", 0, plain(text)) for each in listed for text in each.examples]


def concrete(text: str) -> str:
    """A command with its placeholders filled in."""
    text = re.sub(r"\bCELL\b", CELL, text).replace("pretrained@NAME", "pretrained@pythia_160m")
    return re.sub(r"(?<== )NAME|(?<=[ /])NAME\b(?!=)", "block_length", text).replace("FILE", "params.yaml")


ALL = [dataclasses.replace(command, text=concrete(command.text)) for command in [*commands(), *examples()]]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository with the tiny study, before anything has run."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in (".dvc/config", ".dvc/plots", "search/dvc.yaml", "tune/dvc.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    for name in ("pipeline", "stages", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "studies").mkdir()
    for name in STUDIES:
        one_cell = STUDY.replace("vanilla: {size: [m]}", "vanilla: {size: []}").replace("size: [m, l]", "size: [m]")
        one_cell = one_cell.replace("pythia_160m: {path: elsewhere}", "{}")
        (folder / f"studies/{name}.yaml").write_text(one_cell.replace("name: tiny", f"name: {name}"))
    (folder / "params.yaml").write_text(STUDY)
    (folder / "prompts.txt").write_text("the state\nof the union\n")
    (folder / "text").mkdir()
    draw = random.Random(0)
    for number in range(40):
        words = draw.choices(WORDS, weights=range(len(WORDS), 0, -1), k=200)
        (folder / f"text/{number}.txt").write_text(" ".join(words).replace("peace", "peace.") + ".")
    _model_from_elsewhere(folder / "elsewhere")
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "A study"]):
        subprocess.run(["git", *arguments], cwd=folder, env=environment(), check=True)
    return folder


def _model_from_elsewhere(folder: Path) -> None:
    from pipeline.interop.huggingface import to_huggingface
    from pipeline.models import build
    from pipeline.models.config import StackConfig, VanillaConfig

    to_huggingface(build(VanillaConfig(320, 64, StackConfig(1, 32, 1, 1, 64))), folder)


def environment() -> dict[str, str]:
    """That of a user who has activated the virtual environment and told Git a name."""
    git = {f"GIT_{who}_{what}": "reader" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")}
    return kept | git | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def in_one_process(lines: list[str], folder: Path) -> list[list[Any]]:
    """[status, output] of each command."""
    target = folder.parent / "outcomes.json"
    command = [sys.executable, "-m", "tests.in_one_process", str(target)]
    subprocess.run(command, cwd=folder, env=environment(), input=json.dumps(lines), text=True, check=True)
    outcomes: list[list[Any]] = json.loads(target.read_text())
    return outcomes


def unique(wanted: str) -> list[Command]:
    """The first of each command of that kind."""
    first: dict[str, Command] = {}
    for command in ALL:
        if kind(command) == wanted:
            first.setdefault(command.text, command)
    return list(first.values())


FINISH = ["python -m tests.finish_study", "dvc commit --force dvc.yaml", "git add -A", "git commit -qm Results"]


def test_commands_that_read_and_snippets_of_python_run(empty: Path, tmp_path: Path) -> None:
    shutil.copytree(empty, tmp_path / "finished", symlinks=True)
    lines = {f"before: {text}": text for text in FINISH}
    lines |= {command.where: command.text for command in unique("fast")}
    lines |= {snippet.where: shlex.join(["python", "-c", snippet.text]) for snippet in snippets("python")}
    assert len(lines) > 25
    outcomes = zip(lines, in_one_process(list(lines.values()), tmp_path / "finished"), strict=True)
    assert [f"{where}\n{output}" for where, (status, output) in outcomes if status] == []


@pytest.mark.slow
def test_commands_that_run_stages_run(empty: Path) -> None:
    """From a fresh clone, in the documents' order; what make would install is there already."""
    made = "".join(f" -o .venv/.{name}" for name in ("run", "test", "dev"))
    for command in unique("slow"):
        text = re.sub(r"^make", f"make{made}", command.text)
        ended = subprocess.run(["bash", "-c", text], cwd=empty, env=environment(), capture_output=True, text=True)
        assert ended.returncode == 0, f"{command.where}\n{ended.stdout}\n{ended.stderr}"
    assert (empty / "report/index.html").is_file()
    assert (empty / "runs/block_length/report/index.html").is_file()


@pytest.mark.slow
def test_the_ui_answers(empty: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=empty, env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return b"MLflow" in answer.read()
    except OSError:
        return False


def test_every_command_is_one_that_its_program_takes(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(empty)
    problems = {}
    for command in (each for each in ALL if each.document != FOLLOWED):
        program, *arguments = shlex.split(re.sub(VARIABLES, "", command.text))
        try:
            PARSERS[program](arguments)
        except (AssertionError, SystemExit, argparse.ArgumentError, KeyError) as error:
            problems[command.where] = repr(error)
    assert problems == {}


def _python(arguments: list[str]) -> None:
    assert arguments[0] == "-m"
    module, rest = arguments[1], arguments[2:]
    if module == "pytest":
        return _pytest(rest)
    assert importlib.util.find_spec(module) is not None, module
    if module == "pipeline" and rest != ["--help"]:
        cli._parser().parse_args(rest)
    if module.startswith("stages."):
        assert len(rest) == 1


def _pytest(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for option in ("-m", "-k"):
        parser.add_argument(option, default="")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("files", nargs="*")
    parsed = parser.parse_args(arguments)
    assert parsed.m in ("", "slow", "gpu")
    assert [name for name in parsed.files if not (ROOT / name).exists()] == []


def _dvc(arguments: list[str]) -> None:
    from dvc.cli import parse_args

    parsed = parse_args(arguments)
    if arguments[0] in ("repro", "commit"):
        assert [target for target in parsed.targets if not _is_target(target)] == []


def _is_target(target: str) -> bool:
    """Whether DVC finds it in the tiny study, or it is a stage of a cell of studies/."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    stage, _, cell = target.partition("@")
    with Repo() as repo:
        try:
            return bool(repo.stage.collect(target))
        except DvcException:
            return stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"] and cell in _cells_of_studies()


@cache
def _cells_of_studies() -> set[str]:
    return {cell.name for name in STUDIES for cell in cells(load_study(ROOT / f"studies/{name}.yaml"))}


def _make(arguments: list[str]) -> None:
    target, *assigned = arguments
    assert re.search(rf"^{target}( \w+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    for name, _, value in (each.partition("=") for each in assigned):
        assert name in ("NAME", "SEARCH", "KEEP_GOING")
        assert name != "NAME" or (ROOT / f"studies/{value}.yaml").is_file()


def _torchrun(arguments: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    assert parsed.module
    _python(["-m", parsed.training_script, *parsed.training_script_args])


def _source(arguments: list[str]) -> None:
    (path,) = arguments
    assert f"VENV := {Path(path).parts[0]}\n" in (ROOT / "Makefile").read_text()


def _cd(arguments: list[str]) -> None:
    _, and_then, program, *rest = arguments
    assert and_then == "&&"
    PARSERS[program](rest)


PARSERS: dict[str, Callable[[list[str]], None]] = {
    "python": _python,
    "pytest": _pytest,
    "dvc": _dvc,
    "make": _make,
    "torchrun": _torchrun,
    "srun": lambda arguments: PARSERS[arguments[0]](arguments[1:]),
    "source": _source,
    "cd": _cd,
}


@pytest.mark.parametrize(
    "snippet", [each for each in snippets("yaml") if each.document != "docs/extending.md"], ids=lambda each: each.where
)
def test_a_snippet_of_yaml_is_a_part_of_a_study(snippet: Any, tmp_path: Path) -> None:
    """Merged into params.yaml, it loads, and says what it seems to. test_extending.py loads that page's."""
    change = yaml.safe_load(snippet.text)
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(merged(yaml.safe_load((ROOT / "params.yaml").read_text()), change))
    )
    study = dataclasses.asdict(load_study(tmp_path / "params.yaml"))
    assert [key for key in leaves(change) if found(study, key) != found(change, key)] == []


def merged(values: Any, change: Any) -> Any:
    if not isinstance(values, dict) or not isinstance(change, dict):
        return change
    return values | {key: merged(values.get(key), value) for key, value in change.items()}


def leaves(values: Any, key: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(values, dict) or not values:
        return [key] if values else []
    return [leaf for name, value in values.items() for leaf in leaves(value, (*key, name))]


def found(values: Any, key: tuple[str, ...]) -> Any:
    for part in key:
        values = values[part]
    return values


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        assert not anchor or anchor in headings(there), target


PLACEHOLDERS = r"NAME|JOURNAL|^\."
MADE = ("data/", "checkpoints/", "results/", "report/", "runs/", "logs/", "search/", "tune/")
MADE += ("dvc.lock", "dvc_plots/", "samples.md", ".venv")
ENDINGS = r"\.(py|md|yaml|lock|toml|cff|js|css|html)"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_modules_and_keys_that_are_named_exist(path: Path) -> None:
    sections = {field.name for field in dataclasses.fields(Study)}
    missing = []
    for line, span in spans(path):
        if re.fullmatch(r"[\w./*-]+", span) is None or span.startswith(MADE) or re.search(PLACEHOLDERS, span):
            continue
        if re.search(f"{ENDINGS}$", span) or re.match(r"(pipeline|stages|tests|studies|docs)/", span):
            places = (ROOT.glob(span), *((ROOT / part).rglob(span) for part in ("pipeline", "tests", "studies")))
            present = any(any(place) for place in places)
        elif re.fullmatch(r"(pipeline|stages)(\.\w+)+", span):
            present = importlib.util.find_spec(span) is not None
        elif span.split(".")[0] in sections:
            present = is_key(span)
        else:
            continue
        if not present:
            missing.append(f"{line}: {span}")
    assert missing == []


def is_key(dotted: str) -> bool:
    """Whether it is a key of params.yaml; a name that the user chooses may be anything."""
    hint: Any = Study
    for part in dotted.split("."):
        if part == "*":
            continue
        hint = next((each for each in get_args(hint) if each is not type(None)), hint) if _optional(hint) else hint
        if get_origin(hint) is dict:
            hint = get_args(hint)[1]
        elif dataclasses.is_dataclass(hint) and part in get_type_hints(hint):
            hint = get_type_hints(hint)[part]
        else:
            return False
    return True


def _optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def test_the_help_is_a_map_of_every_command() -> None:
    printed = cli._parser().format_help()
    places = [
        printed.index(f"\n  {each.name} ")
        for group in cli.GROUPS.values()
        for each in group
        if isinstance(each, cli.Command)
    ]
    assert places == sorted(places)
    assert "docs/README.md" in printed


def test_the_guide_lists_every_page() -> None:
    listed = {target.partition("#")[0] for target in links(ROOT / "docs/README.md")}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


def test_the_readmes_first_screen_is_read_in_a_minute() -> None:
    """Everything above its second heading."""
    screen = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert screen.count("![") == 1
    assert words(screen) <= 150


def test_the_whole_readme_is_read_in_a_minute_and_has_one_picture() -> None:
    """Its prose; blocks of code and tables are looked up."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("![") == 1
    assert words(re.sub(r"^\|.*$", "", FENCE.sub("", text), flags=re.MULTILINE)) <= 300


def words(text: str) -> int:
    """Those that are read: neither pictures nor what links lead to."""
    read = re.sub(r"!\[.*?\]\(.*?\)|(?<=\])\(\S*?\)", "", text).split()
    return len([word for word in read if re.search(r"\w", word)])
