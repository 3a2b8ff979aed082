"""`python -m pipeline verify` finds whatever was changed behind the pipeline's back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json, write_text
from pipeline.commands.main import main
from pipeline.commands.verify import verify
from pipeline.interop.huggingface import to_huggingface
from pipeline.interop.pretrained import bring_in
from pipeline.models import build
from pipeline.models.config import StackConfig, VanillaConfig
from pipeline.results.records import PretrainResult, read_result, write_result
from pipeline.results.search import FILES, TUNE_FILES
from pipeline.study import load_study
from tests.finish_study import finish

CELL = "block-s-4-base-0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A study as `dvc repro` leaves it, but for its numbers, which nobody measured; DVC itself writes dvc.lock."""
    folder = tmp_path_factory.mktemp("finished")
    for part in ("pipeline", "stages"):
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", folder)
    shutil.copy(root / "requirements.lock", folder)
    (folder / paths.SEARCH).mkdir()
    text = (root / "tests/params.yaml").read_text(encoding="utf-8")
    text = text.replace("source: sotu", "source: files").replace("files: []", 'files: ["text/*.txt"]')
    text = (
        text.replace("size: [s, m]", "size: [s]")
        .replace("[2, 4, 8]", "[4]")
        .replace("vocabulary: 4096", "vocabulary: 300")
    )
    text = text.replace("fraction: 0.05", "fraction: 0.2")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    (folder / "text").mkdir()
    for number in range(20):
        (folder / f"text/{number}.txt").write_text(f"document {number} " * 50, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finish()
        Repo.init(no_scm=True).close()
        with Repo() as repo:
            repo.commit(force=True)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def problems() -> dict[str, list[str]]:
    return {check.name: check.problems for check in verify(load_study()) if check.problems}


def test_a_finished_study_verifies(project: Path) -> None:
    names = [check.name for check in verify(load_study())]
    assert problems() == {}
    assert "outputs of tokenize" in names
    assert f"outputs of evaluate-block@{CELL}" in names
    assert f"cell {CELL}" in names
    assert names[-1] == "report: its numbers are the results'"


def test_the_command_prints_a_line_a_check_and_its_status_tells(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pipeline", "verify"])
    main()
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert all(line.startswith("ok  ") for line in printed.splitlines())
    flip(paths.checkpoint(CELL) / "model.safetensors")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed, errors = capsys.readouterr()
    assert errors.startswith("error: 2 of ")
    assert f"FAILED  outputs of pretrain-block@{CELL}\n        checkpoints/{CELL} has changed since" in printed


def flip(path: Path) -> None:
    """One bit of the last byte, and the file's date as it was: as a disk does it."""
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_flipped_bit_in_a_checkpoint(project: Path) -> None:
    flip(paths.checkpoint(CELL) / "model.safetensors")
    found = problems()
    assert set(found) == {f"outputs of pretrain-block@{CELL}", f"cell {CELL}"}
    assert len(found[f"cell {CELL}"]) == 3
    assert all("is about weights" in problem for problem in found[f"cell {CELL}"])


@pytest.mark.parametrize("name", ["data/tokens/train-00000.bin", "data/corpus/test-00000.jsonl.zst"])
def test_a_flipped_bit_in_the_data(project: Path, name: str) -> None:
    flip(Path(name))
    stage = "tokenize" if "tokens" in name else "corpus"
    assert list(problems()) == [f"outputs of {stage}"]


def test_an_edited_number_in_a_result(project: Path) -> None:
    path = paths.result("evaluate", CELL)
    values = read_json(path)
    write_json(path, values | {"loss": values["loss"] - 0.5})
    found = problems()
    assert set(found) == {f"outputs of evaluate-block@{CELL}", "report: its numbers are the results'"}
    report = found["report: its numbers are the results'"]
    assert any(problem.startswith(f"report/metrics/{CELL}.json: loss is ") for problem in report)
    assert any(f"report/results.csv, line 3 ({CELL})" in problem for problem in report)


def test_an_edited_number_in_the_report(project: Path) -> None:
    table = Path("report/results.csv")
    text = table.read_text(encoding="utf-8")
    loss = str(read_json(paths.result("evaluate", CELL))["loss"])
    assert loss in text
    table.write_text(text.replace(loss, "1.5"), encoding="utf-8")
    found = problems()
    assert found["report: its numbers are the results'"] == [
        f"report/results.csv, line 3 ({CELL}) is not what the results give"
    ]
    assert "outputs of report" in found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"results/benchmark/{CELL}.json", "is missing"),
        (f"checkpoints/{CELL}/model.safetensors", "is missing"),
        ("report/results.csv", "is missing"),
        (f"report/metrics/{CELL}.json", "no such file"),
        ("data/tokens/manifest.json", "no such file"),
    ],
)
def test_a_removed_file(project: Path, name: str, message: str) -> None:
    Path(name).unlink()
    found = problems()
    assert any(name in problem and message in problem for part in found.values() for problem in part)


def test_weights_of_other_parameters(project: Path) -> None:
    path = Path("params.yaml")
    path.write_text(
        path.read_text(encoding="utf-8").replace("weight_decay: 0.1", "weight_decay: 0.2"), encoding="utf-8"
    )
    found = problems()
    assert set(found) == {"cell vanilla-s-0", f"cell {CELL}"}
    assert len(found[f"cell {CELL}"]) == 3
    assert all("is of fingerprint" in problem for problem in found[f"cell {CELL}"])


SECTIONS = {
    paths.SEARCH: "search: {setting: decode_heavy, size: s, variant: base, space: {block_length: [4]}}\n",
    paths.TUNE: "tune: {models: [vanilla-s], space: {learning_rate: [0.1]}, tokens: 1000}\n",
}


@pytest.mark.parametrize(("folder", "files"), [(paths.SEARCH, FILES), (paths.TUNE, TUNE_FILES)])
def test_a_flipped_bit_in_what_a_search_wrote(project: Path, root: Path, folder: Path, files: tuple[Path, ...]) -> None:
    """A search has a dvc.lock of its own, beside its dvc.yaml; so has a tuning."""
    folder.mkdir(exist_ok=True)
    shutil.copy(root / folder / "dvc.yaml", folder / "dvc.yaml")
    with Path("params.yaml").open("a", encoding="utf-8") as opened:
        opened.write(SECTIONS[folder])
    for path in files:
        write_text(path, "whatever a search wrote\n")
    with Repo() as repo:
        repo.commit(str(folder / "dvc.yaml"), force=True)
    assert problems() == {}
    assert f"outputs of {folder.name}" in [check.name for check in verify(load_study())]
    flip(files[1])
    assert list(problems()) == [f"outputs of {folder.name}"]


def test_before_anything_has_run(project: Path) -> None:
    Path("dvc.lock").unlink()
    with pytest.raises(UserError, match=r"dvc\.lock: no such file; run `dvc repro` first"):
        problems()


def test_a_result_says_what_made_it(project: Path) -> None:
    result = read_result(paths.result("pretrain", CELL), PretrainResult, "pretrain")
    made = result.provenance
    assert made is not None
    folder = paths.checkpoint(CELL)
    assert made.data == read_json(Path("data/tokens/manifest.json"))["hash"]
    sums = subprocess.run(
        ["sha256sum", "params.yaml", "requirements.lock", folder / "tokenizer.json", folder / "model.safetensors"],
        capture_output=True, text=True, check=True,
    ).stdout.split()[::2]  # fmt: skip
    assert [made.params, made.lock, made.tokenizer, made.weights] == sums
    assert {"torch", "numpy", "tokenizers", "lightning"} <= made.versions.keys()


def foreign_cell(project: Path) -> None:
    """The finished study with a model trained elsewhere besides, which was brought in."""
    to_huggingface(build(VanillaConfig(384, 64, StackConfig(1, 32, 1, 1, 64))), "elsewhere")
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8").replace("pretrained: {}", "pretrained: {other: {path: elsewhere}}")
    path.write_text(text, encoding="utf-8")
    write_result(paths.result("pretrain", "other"), bring_in("other", load_study().pretrained["other"]))


@pytest.mark.parametrize("left", ["all", "no weights", "no folder", "a folder for weights", "a dangling link"])
def test_weights_from_elsewhere_that_are_missing_are_named_with_their_cell(project: Path, left: str) -> None:
    foreign_cell(project)
    weights = paths.checkpoint("other") / "model.safetensors"
    if left == "no folder":
        shutil.rmtree(weights.parent)
    elif left != "all":
        weights.unlink()
    if left == "a folder for weights":
        weights.mkdir()
    if left == "a dangling link":
        weights.symlink_to("gone")
    found = problems()["cell other"]
    assert (f"{weights} is missing" in found) == (left != "all")
    assert [problem for problem in found if "no such result" in problem] == [
        f"results/{stage}/other.json: no such result; run `dvc repro` (stage {stage}) first"
        for stage in ("evaluate", "benchmark")
    ]
    assert not any("fingerprint" in problem for problem in found)


def test_every_missing_result_of_a_cell_is_named(project: Path) -> None:
    for stage in ("pretrain", "benchmark"):
        paths.result(stage, CELL).unlink()
    paths.result("evaluate", CELL).write_text("{", encoding="utf-8")
    (paths.checkpoint(CELL) / "model.safetensors").unlink()
    found = problems()[f"cell {CELL}"]
    assert [problem.partition(":")[0].partition(" is")[0] for problem in found] == [
        f"checkpoints/{CELL}/model.safetensors",
        f"results/pretrain/{CELL}.json",
        f"results/evaluate/{CELL}.json",
        f"results/benchmark/{CELL}.json",
    ]


DAMAGED_LOCKS = ["", "stages:\n", "stages: []\n", "stages: {a: 3}\n", "- 1\n", "stages: {a: {outs: [{path: x}]}}\n",
                 "{", "\0", "stages: {a: {outs: [x]}}\n", "stages: {a: {outs: 3}}\n", "outs: []\n"]  # fmt: skip


def test_a_damaged_lock_file(project: Path) -> None:
    for content in DAMAGED_LOCKS:
        Path("dvc.lock").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"^dvc\.lock: damaged"):
            problems()


LATER = [f"results/evaluate/{CELL}.json", "report/results.csv", "report/report.json", f"report/metrics/{CELL}.json"]


def test_a_folder_in_place_of_a_file(project: Path) -> None:
    for name in map(Path, LATER):
        content = name.read_bytes()
        name.unlink()
        name.mkdir()
        assert any(str(name) in problem for part in problems().values() for problem in part)
        name.rmdir()
        name.write_bytes(content)
    assert problems() == {}
