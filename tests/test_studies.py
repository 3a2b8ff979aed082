"""A study of studies/ runs in a folder of its own and leaves the main study as it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.commands.main import main
from pipeline.commands.study import prepare

TINY = """\
# A study of the tests.
name: tiny
corpus: {source: files, files: ["texts/*.txt"], validation_fraction: 0.2, test_fraction: 0.2}
tokenize: {vocabulary: 260}
sizes:
  s: {layers: 2, width: 32}
variants:
  base: {}
grid:
  vanilla: {size: []}
  block: {size: [s], block_length: [4], variant: [base]}
  uptrained: {source: [], block_length: [], variant: []}
  seed: [0]
pretrained: {}
pretrain:
  {context_length: 32, tokens: 2048, budgets: [], batch_size: 2, warmup_steps: 2, validate_every: 16,
   validation_tokens: 256}
evaluate: {tasks: []}
benchmark:
  settings:
    decode_heavy: {prompt: 8, new_tokens: 24}
  batch_sizes: [1]
  repeats: 1
hardware: {checkpoint_every: 4, label: auto}
"""
SEARCH = """\
search:
  {trials: 2, objectives: [tokens_per_second], throughput: roofline, setting: decode_heavy, size: s, variant: base,
   space: {block_length: [2, 4]}}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A repository with this one's code, a main study with results, and a tiny study that reads files of its own."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(root / name, folder / name)
    for name in ("pipeline", "stages", "search", "tune"):
        (folder / name).symlink_to(root / name)
    files = {"params.yaml": TINY.replace("name: tiny", "name: main"), "studies/tiny.yaml": TINY}
    files |= {"results/pretrain/vanilla-s-0.json": "{}", "data/corpus/train.jsonl": "main"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "texts").mkdir()
    for number in range(10):
        (folder / f"texts/{number}.txt").write_text(f"document {number} says that plain text repeats. " * 20)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    shutil.copytree(root / ".dvc/plots", folder / ".dvc/plots")
    return folder


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test works."""
    shutil.copytree(prepared, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def study(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "study", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def reproduce(folder: Path, target: str) -> str:
    command = [sys.executable, "-m", "dvc", "repro", target]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def main_study(repository: Path) -> dict[str, str]:
    """Hash of every file of the main study, by path."""
    files = [repository / "params.yaml", *repository.glob("results/**/*.*"), *repository.glob("data/**/*.*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_a_study_has_its_own_data_and_the_repositorys_code_and_texts(repository: Path) -> None:
    before = main_study(repository)
    folder = prepare("tiny")
    output = reproduce(folder, "tokenize")
    assert "Running stage 'tokenize'" in output
    unknown = "how long the rest takes is known once such stages have run on this machine"
    assert re.findall("^stage .*", output, re.MULTILINE) == [f"stage {number} of 7; {unknown}" for number in (1, 2, 3)]
    assert (folder / "data/corpus/manifest.json").is_file()
    for name in ("pipeline", ".dvc/plots"):
        assert (folder / name).resolve() == (repository / name).resolve()
    assert "Stage 'tokenize' didn't change" in reproduce(prepare("tiny"), "tokenize")
    assert main_study(repository) == before


@pytest.mark.slow
def test_an_edit_of_the_file_is_picked_up_and_a_shared_corpus_read_once(repository: Path) -> None:
    reproduce(prepare("tiny"), "tokenize")
    (repository / "studies/tiny.yaml").write_text(TINY.replace("vocabulary: 260", "vocabulary: 262"))
    assert "Running stage 'tokenize'" in reproduce(prepare("tiny"), "tokenize")
    (repository / "studies/other.yaml").write_text(TINY.replace("name: tiny", "name: other"))
    assert "Stage 'tokenize' is cached" in reproduce(prepare("other"), "tokenize")


@pytest.mark.parametrize(("right", "wrong", "message"), [
    ("name: tiny", "name: other", "studies/tiny.yaml: name: 'other' is wrong; it must be 'tiny', as the file"),
    ("width: 32", "widht: 32", "studies/tiny.yaml: sizes.s.widht: unknown key; did you mean 'width'?"),
    ("texts/*.txt", "data/*.txt", "studies/tiny.yaml: 'data/*.txt' lies outside the study's own folder; "
                                  "give its absolute path"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_makes_no_folder(repository: Path, right: str, wrong: str, message: str) -> None:
    (repository / "studies/tiny.yaml").write_text(TINY.replace(right, wrong))
    with pytest.raises(UserError) as error:
        prepare("tiny")
    assert str(error.value) == message
    assert not (repository / "runs").exists()


def test_an_unknown_study_lists_those_there_are(repository: Path) -> None:
    ended = study("tinny")
    assert ended.returncode == 1
    assert ended.stderr == "error: study 'tinny' is not in studies/; did you mean 'tiny'? there are tiny\n"
    assert study().stdout == "tiny  A study of the tests.\n"


def test_a_cell_that_the_study_has_not_is_refused(repository: Path) -> None:
    ended = study("tiny", "block-s-8-base-0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cell 'block-s-8-base-0' ")
    assert not (repository / "runs").exists()


@pytest.mark.slow
def test_some_cells_of_a_study_run_to_a_report_on_what_is_finished(repository: Path) -> None:
    (repository / "studies/tiny.yaml").write_text(TINY.replace("block_length: [4]", "block_length: [2, 4]"))
    ended = study("tiny", "block-s-4-base-0")
    assert ended.returncode == 0, ended.stderr
    folder = repository / "runs/tiny"
    assert [path.stem for path in folder.glob("results/*/*.json")] == ["block-s-4-base-0"] * 3
    assert "block-s-4-base-0" in (folder / "report/results.md").read_text()
    assert "python -m stages.report --finished" in ended.stdout


@pytest.mark.slow
def test_one_seed_of_a_model_is_timed_and_the_others_have_its_speed(repository: Path) -> None:
    (repository / "studies/tiny.yaml").write_text(TINY.replace("seed: [0]", "seed: [0, 1]"))
    for arguments in (["block-s-4-base-0"], ["block-s-4-base-1", "--no-benchmark"]):
        ended = study("tiny", *arguments)
        assert ended.returncode == 0, ended.stderr
    folder = repository / "runs/tiny"
    assert [path.stem for path in folder.glob("results/benchmark/*.json")] == ["block-s-4-base-0"]
    told = (folder / "report/results.md").read_text()
    assert "have the speeds of another seed of the same model: block-s-4-base-1" in told
    assert "block-s-4-base-1" not in told.partition("Missing results")[2]


def test_a_file_in_the_way_is_kept(repository: Path) -> None:
    (repository / "runs/tiny").mkdir(parents=True)
    (repository / "runs/tiny/params.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"runs/tiny/params\.yaml: in the way of a link to studies/tiny\.yaml"):
        prepare("tiny")
    assert (repository / "runs/tiny/params.yaml").read_text() == "mine"


@pytest.mark.parametrize(("section", "page"), [("search", "docs/search.md"), ("tune", "docs/tuning.md")])
def test_what_the_study_has_no_section_for_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], section: str, page: str
) -> None:
    monkeypatch.setattr("sys.argv", ["pipeline", "study", "tiny", f"--{section}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: studies/tiny.yaml: it has no section {section}; {page} shows one\n"
    assert not (repository / "runs").exists()


@pytest.mark.slow
def test_a_study_runs_its_tuning_where_asked_for(repository: Path) -> None:
    section = "tune: {models: [block-s-4-base], space: {learning_rate: [0.01, 0.02]}, trials: 2, tokens: 1024}\n"
    (repository / "studies/tiny.yaml").write_text(TINY + section)
    ended = study("tiny", "--tune")
    assert ended.returncode == 0, ended.stderr
    assert "Running stage 'report'" in ended.stdout.partition("Running stage 'tune/dvc.yaml:tune'")[2]
    assert "block-s-4-base:" in (repository / "runs/tiny/tune/recipes.yaml").read_text()
    assert (repository / "runs/tiny/tune/curves.svg").exists()


@pytest.mark.slow
def test_a_study_runs_its_search_where_asked_for_and_else_says_how(repository: Path) -> None:
    (repository / "studies/tiny.yaml").write_text(TINY + SEARCH)
    ended = study("tiny")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("its section search was not run; python -m pipeline study tiny --search does\n")
    assert not (repository / "runs/tiny/search/results.json").exists()
    ended = study("tiny", "--search")
    assert ended.returncode == 0, ended.stderr
    assert "section search was not run" not in ended.stdout
    assert "Running stage 'report'" in ended.stdout.partition("Running stage 'search/dvc.yaml:search'")[2]
    assert len(json.loads((repository / "runs/tiny/search/results.json").read_text())["trials"]) == 2
    assert "Search history" in (repository / "runs/tiny/report/index.html").read_text()


@pytest.mark.slow
def test_a_study_runs_to_its_report_and_goes_on_after_ctrl_c(repository: Path) -> None:
    before = main_study(repository)
    command = [sys.executable, "-m", "pipeline", "study", "tiny"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(repository.glob("runs/tiny/checkpoints/*/curve.csv")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert b"run the same command again to go on" in errors
    assert b"Traceback" not in errors

    ended = study("tiny")
    assert ended.returncode == 0, ended.stderr
    assert "block-s-4-base-0" in ended.stdout.partition("Running stage 'report'")[2]
    folder = repository / "runs/tiny"
    assert (folder / "report/index.html").is_file()
    subprocess.run([sys.executable, "-m", "dvc", "plots", "show", "-q"], cwd=folder, check=True)
    assert "Loss against tokens per second" in (folder / "dvc_plots/index.html").read_text()
    assert (folder / "results/benchmark/block-s-4-base-0.json").is_file()
    assert main_study(repository) == before

    from pipeline.tracking import client

    experiment = client().get_experiment_by_name("tiny")
    assert experiment is not None
    assert experiment.artifact_location == (repository / "mlruns/tiny").as_uri()
    assert not (folder / "mlruns").exists()
    again = study("tiny")
    assert again.returncode == 0
    assert "Running stage 'pretrain" not in again.stdout
