"""Studies that are moved and copied: MLflow's artifacts lie beside the database, wherever that lies."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from pipeline import tracking
from pipeline.results.search import SearchResult, write_search
from pipeline.search.tracking import sync_searches
from pipeline.tracking.store import _follow_the_database
from tests.faults.stages import hashes, start
from tests.faults.trackers import free_port
from tests.test_tracking import identity, write_checkpoint, write_report

CELL = identity().name
FRONTS = {"decode_heavy": [CELL]}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one cell with a report, in MLflow."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_checkpoint("a", steps=1)
        write_report(Path("report"), FRONTS)
        sync()
    return folder


@pytest.fixture
def study(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy, brought up to date in its own place; the original stays as it was."""
    before = hashes(original)
    folder = tmp_path / "my study, 100% ü"
    shutil.copytree(original, folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)
    sync()
    assert artifacts(folder) == WHOLE
    yield folder
    assert hashes(original) == before


def sync() -> None:
    """What `python -m pipeline tracking sync` does, as a process of its own would."""
    utils._artifact_repos_cache.clear()
    assert tracking.sync_cell("study", CELL)
    assert sync_searches("study")
    assert tracking.sync_report("study")


def artifacts(folder: Path) -> dict[str, list[str]]:
    """Each run's artifacts as MLflow lists them; all lie in the folder, which every location names."""
    utils._artifact_repos_cache.clear()
    mlflow = tracking.client()
    for each in mlflow.search_experiments():
        assert each.artifact_location.removeprefix("file://") == tail(folder, each.artifact_location)
    experiment = mlflow.get_experiment_by_name("study")
    assert experiment is not None
    found = {}
    for run in mlflow.search_runs([experiment.experiment_id]):
        assert run.info.artifact_uri.startswith((folder / "mlruns").as_uri() + "/")
        found[run.info.run_name] = sorted(entry.path for entry in mlflow.list_artifacts(run.info.run_id))
    return found


def tail(folder: Path, location: str) -> str:
    """The location's last part under the folder, in the location's own form."""
    mlruns = folder / "mlruns" / Path(location).name
    return mlruns.as_uri().removeprefix("file://") if location.startswith("file:") else str(mlruns)


WHOLE = {CELL: ["config.yaml"], "report": ["figures", "report.json"]}


def test_a_moved_study_has_its_artifacts_in_the_new_folder(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = study.with_name("moved")
    study.rename(moved)
    monkeypatch.chdir(moved)
    sync()
    assert artifacts(moved) == WHOLE
    assert not study.exists(), "the old folder is not made anew"


def test_nothing_outside_a_copy_changes(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(study)
    copied = study.with_name("copied")
    shutil.copytree(study, copied, symlinks=True)
    monkeypatch.chdir(copied)
    write_report(Path("report"), {"decode_heavy": []})
    write_checkpoint("b", steps=1)
    sync()
    assert hashes(study) == before
    assert len(list(copied.glob("mlruns/study/*/artifacts/config.yaml"))) == 2
    monkeypatch.chdir(study)
    sync()
    assert artifacts(study) == WHOLE


def test_a_database_that_came_without_its_artifacts_gets_them_again(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = study.with_name("other machine")
    shutil.copytree(study, other, ignore=shutil.ignore_patterns("mlruns"))
    monkeypatch.chdir(other)
    sync()
    assert artifacts(other) == WHOLE


def test_studies_of_a_moved_repository_are_moved_with_it(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of runs/ writes the repository's database, by a link."""
    nested = study / "runs" / "nested"
    nested.mkdir(parents=True)
    (nested / "mlflow.db").symlink_to("../../mlflow.db")
    shutil.copytree("checkpoints", nested / "checkpoints")
    monkeypatch.chdir(nested)
    assert tracking.sync_cell("nested", CELL)
    moved = study.with_name("moved")
    study.rename(moved)
    for folder in (moved / "runs" / "nested", moved):
        monkeypatch.chdir(folder)
        utils._artifact_repos_cache.clear()
        write_checkpoint("b", steps=1)
        assert tracking.sync_cell(folder.name.replace("moved", "study"), CELL)
    assert artifacts(moved).keys() == WHOLE.keys()
    kept = [path.relative_to(moved).parts[1] for path in moved.glob("mlruns/*/*/artifacts/config.yaml")]
    assert sorted(kept) == ["nested", "nested", "study", "study"]
    assert not study.exists()
    assert not list(moved.glob("runs/*/mlruns"))


@pytest.mark.parametrize("copy", ["tmpabc", "standalone/tmpabc"])
def test_a_copy_that_dvc_makes_for_an_experiment_writes_the_repositorys(
    study: Path, monkeypatch: pytest.MonkeyPatch, copy: str
) -> None:
    inside = study / ".dvc/tmp/exps" / copy
    shutil.copytree(study / "checkpoints", inside / "checkpoints")
    monkeypatch.chdir(inside)
    monkeypatch.setenv("DVC_EXP_NAME", "slower")
    assert tracking.sync_cell("study", CELL)
    assert not list(inside.glob("ml*"))
    assert {path.name for path in study.iterdir()} == {
        ".dvc", "checkpoints", "mlflow.db", "mlflow.lock", "mlruns", "report",
    }  # fmt: skip
    monkeypatch.delenv("DVC_EXP_NAME")
    assert len(list(study.glob("mlruns/study/*/artifacts/config.yaml"))) == 2, "an experiment's run is its own"


def test_a_search_gets_its_files_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_search(
        SearchResult(
            study="study",
            identity="i",
            objectives=["loss"],
            setting="short",
            throughput="measured",
            size="s",
            wanted=3,
            infeasible=0,
            failed=0,
            trials=[],
            best=[],
        )
    )
    for name in ("trials.csv", "variants.yaml"):
        Path("search", name).touch()
    sync()
    other = study.with_name("other")
    shutil.copytree(study, other, ignore=shutil.ignore_patterns("mlruns"))
    monkeypatch.chdir(other)
    sync()
    assert artifacts(other) == WHOLE | {"search": ["results.json", "trials.csv", "variants.yaml"]}


OLD = "/old place"
NEW = Path("/new place")
LOCATIONS = [
    ("file:///old%20place/mlruns/study", "file:///new%20place/mlruns/study"),
    ("/old place/mlruns/0", "/new place/mlruns/0"),
    ("file:///old%20place/runs/nested/mlruns/0", "file:///new%20place/mlruns/0"),
    ("file:///old/%C3%BC%25/mlruns/renamed", "file:///new%20place/mlruns/renamed"),
    ("file:///new%20place/mlruns/study", None),
    ("/new place/mlruns/study", None),
    ("s3://bucket/mlruns/study", None),
    ("mlflow-artifacts:/mlruns/study", None),
    ("file:///scratch/artifacts", None),
    ("/scratch/artifacts/study", None),
    ("", None),
]


@pytest.mark.parametrize(("location", "mended"), LOCATIONS)
def test_locations(tmp_path: Path, location: str, mended: str | None) -> None:
    """Of an experiment, its run, and a run whose artifacts the user has elsewhere; mended twice."""
    database = tmp_path / "new place" / "mlflow.db"
    database.parent.mkdir()
    here = str(tmp_path)
    location = location.replace("/new%20place", f"{here}/new%20place").replace("/new place", f"{here}/new place")
    wanted = location if mended is None else mended.replace("/new", f"{here}/new")
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT)")
        opened.execute("CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, artifact_uri TEXT)")
        opened.execute("INSERT INTO experiments VALUES (1, ?)", (location,))
        runs = [("a", 1, f"{location}/a/artifacts"), ("b", 1, "s3://elsewhere/b"), ("c", 2, f"{location}/c/artifacts")]
        opened.executemany("INSERT INTO runs VALUES (?, ?, ?)", runs)
    for _ in range(2):
        _follow_the_database(database)
    with closing(sqlite3.connect(database)) as opened:
        assert opened.execute("SELECT artifact_location FROM experiments").fetchone() == (wanted,)
        uris = dict(opened.execute("SELECT run_uuid, artifact_uri FROM runs").fetchall())
    assert uris == {"a": f"{wanted}/a/artifacts", "b": "s3://elsewhere/b", "c": f"{location}/c/artifacts"}


@pytest.mark.parametrize("content", [b"", b"no database, but a text of some length" * 10])
def test_a_file_that_is_no_database_of_mlflows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """An empty one becomes MLflow's; another costs a warning and is left as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("mlflow.db").write_bytes(content)
    write_checkpoint("a", steps=1)
    assert tracking.sync_cell("study", CELL) == (not content)
    assert ("MLflow is behind" in capsys.readouterr().err) == bool(content)
    assert not content or Path("mlflow.db").read_bytes() == content


@pytest.mark.slow
def test_the_ui_shows_the_artifacts_of_a_moved_study(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = study.with_name("moved")
    study.rename(moved)
    monkeypatch.chdir(moved)
    port = free_port()
    server = start("pipeline", "ui", "--port", str(port))
    try:
        deadline = time.monotonic() + 120
        while (answer := fetch(port, "health")) is None:
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.5)
        assert answer == b"OK"
        mlflow = tracking.client()
        experiment = mlflow.get_experiment_by_name("study")
        assert experiment is not None
        (run,) = mlflow.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
        config = fetch(port, f"get-artifact?path=config.yaml&run_uuid={run.info.run_id}")
        assert config is not None
        assert b"block_length" in config
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate(timeout=60)
    assert not study.exists()


def fetch(port: int, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            return bytes(answer.read())
    except OSError:
        return None
