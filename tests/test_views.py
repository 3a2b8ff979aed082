"""MLflow's UI opens on the study's answer: its saved views, their addresses, and what a browser shows there."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import webbrowser
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import tracking
from pipeline.analysis.page.report import write_report
from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import write_json
from pipeline.study import Study, cells
from pipeline.tracking.ui import open_when_up, serve_ui
from tests.analysis.pictures import without_png
from tests.analysis.synthetic import identity, study_file, write_results
from tests.browser import chromium

PICTURES = os.environ.get("PICTURES")
"""Keep the views' pictures there: `PICTURES=docs/images pytest tests/test_views.py -m slow` makes those of the docs."""


def synced(folder: Path, seeds: list[int]) -> Study:
    """A study that nobody trained, in MLflow; the working directory is its folder."""
    study = study_file(folder, {"s": (4, 128), "m": (6, 192)}, [2, 4, 8], seeds=seeds)
    write_results(study)
    for cell in cells(study):
        record = {"cell": dataclasses.asdict(identity(cell)), "fingerprint": identity(cell).fingerprint}
        write_json(paths.checkpoint(cell.name) / "config.json", record | {"pretrain": {"learning_rate": 0.01}})
        assert tracking.sync_cell(study.name, cell.name)
    with without_png():
        write_report(study, paths.REPORT)
    assert tracking.sync_report(study.name)
    return study


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def view_tags(study: Study) -> dict[str, str]:
    tags = tracking.client().get_experiment_by_name(study.name).tags
    return {key: value for key, value in tags.items() if key.startswith("mlflow.sharedViewState.")}


def state(value: str) -> dict[str, Any]:
    """A view's state, unpacked as the UI does it."""
    head, packed = json.loads(value)["state"].split(";")
    assert head == "deflate"
    unpacked: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return unpacked


@pytest.fixture(scope="module")
def of_one_seed(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Study]:
    """A study in MLflow, in the working directory."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield synced(folder, seeds=[0])


def test_a_report_leaves_views_of_the_studys_cells(of_one_seed: Study) -> None:
    study = of_one_seed
    views = view_tags(study)
    pareto = state(views["mlflow.sharedViewState.pareto"])
    axes = [(card["xaxis"]["key"], card["yaxis"]["key"]) for card in pareto["compareRunCharts"] if "xaxis" in card]
    assert axes == [
        ("decode_heavy_tokens_per_second", "loss"),
        ("prefill_heavy_tokens_per_second", "loss"),
        ("decode_heavy_bytes_per_sample", "loss"),
        ("prefill_heavy_bytes_per_sample", "loss"),
    ]
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name(study.name)
    runs = mlflow.search_runs([experiment.experiment_id], pareto["searchFilter"])
    assert {run.info.run_name for run in runs} == {cell.name for cell in cells(study)}
    charts = {card["metricKey"] for card in pareto["compareRunCharts"] if card["deleted"]}
    assert charts == {key for run in runs for key in run.data.metrics}, (
        "the UI would add a chart for each of the others"
    )
    colours = {run.data.tags["mlflow.runColor"] for run in runs if run.data.params["family"] == "vanilla"}
    assert len(colours) == 1
    assert {run.data.params["model"] for run in runs} == {cell.model for cell in cells(study)}

    assert tracking.sync_report(study.name)
    assert view_tags(study) == views, "equal views keep their times"


def test_curves_can_be_drawn_along_tokens_and_flops(of_one_seed: Study) -> None:
    study = of_one_seed
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name(study.name)
    (run,) = mlflow.search_runs([experiment.experiment_id], "tags.cell = 'vanilla-s-0'")
    tokens, flops = (mlflow.get_metric_history(run.info.run_id, key) for key in ("tokens", "training_flops"))
    assert [metric.value for metric in tokens] == [8192.0 * step for step in range(10, 370, 10)]
    result = json.loads(paths.result("pretrain", "vanilla-s-0").read_text())
    share = result["training_flops"] / result["tokens"]
    assert [metric.value for metric in flops] == pytest.approx([share * metric.value for metric in tokens])
    assert {entry.path for entry in mlflow.list_artifacts(run.info.run_id)} == {"config.yaml", "samples.md"}
    assert run.data.tags["checkpoint"] == "checkpoints/vanilla-s-0"


@pytest.mark.usefixtures("mlflow_database")
def test_a_study_without_timings_has_no_view_of_speeds(workspace: Path) -> None:
    study = study_file(workspace, {"s": (4, 128)}, [2], few_figures=True)
    write_results(study)
    for cell in cells(study):
        paths.result("benchmark", cell.name).unlink()
    with without_png():
        write_report(study, paths.REPORT)
    assert tracking.sync_report(study.name)
    assert {key.rpartition(".")[2] for key in view_tags(study)} == {"table", "curves"}
    experiment = tracking.client().get_experiment_by_name(study.name)
    (run,) = tracking.client().search_runs([experiment.experiment_id], "tags.kind = 'report'")
    assert run.data.tags["mlflow.note.content"].startswith("No model of the study is timed, ")


@pytest.mark.slow
def test_charts_average_the_seeds_of_a_model(workspace: Path) -> None:
    views = view_tags(synced(workspace, seeds=[0, 1]))
    by_model = {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "model"}]}
    grouped = {key.rpartition(".")[2]: state(value)["groupBy"] for key, value in views.items()}
    assert grouped == {"pareto": by_model, "curves": by_model, "probes": by_model, "table": None}


@pytest.fixture
def server(of_one_seed: Study) -> Iterator[dict[str, str]]:
    """Where `python -m pipeline ui` says that the views are, by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline", "ui", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        opened: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(webbrowser, "open", opened.append)
            open_when_up(f"http://127.0.0.1:{port}/#/x")
        assert opened == [f"http://127.0.0.1:{port}/#/x"]
        yield dict(re.findall(r"^(\w+): (http\S+)$", "".join(lines), re.MULTILINE))
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def shown(browser: Any, address: str, selector: str, count: int) -> list[str]:
    """The texts of the elements that fit, once there are ``count``; nothing is clicked."""
    browser.get("about:blank")
    deadline = time.monotonic() + 180
    browser.get(address)
    while len(found := browser.find_elements("css selector", selector)) < count:
        assert time.monotonic() < deadline, browser.find_element("css selector", "body").text
        time.sleep(1)
    return [element.text for element in found]


@pytest.mark.slow
def test_a_browser_shows_the_answer_without_a_click(server: dict[str, str], browser: Any) -> None:
    assert list(server) == ["Pareto", "Table", "Curves"]
    points = shown(browser, server["Pareto"], ".js-plotly-plot .point", 16)
    assert len(points) % 8 == 0, "each chart has all eight cells"
    titles = {element.text for element in browser.find_elements("css selector", ".xtitle, .ytitle")}
    assert {"decode_heavy_tokens_per_second", "loss"} <= titles
    assert re.search(r"Pareto\s*\(4\)", browser.find_element("css selector", "body").text)
    keep_picture(browser, "mlflow-pareto")

    rows = shown(browser, server["Table"], ".ag-row", 8)
    assert any("vanilla-m-0" in row for row in rows)
    keep_picture(browser, "mlflow-table")

    shown(browser, server["Curves"], ".js-plotly-plot .xtitle", 2)
    titles = {element.text for element in browser.find_elements("css selector", ".xtitle")}
    assert titles == {"tokens", "training_flops"}
    keep_picture(browser, "mlflow-curves")


def keep_picture(browser: Any, name: str) -> None:
    if PICTURES:
        time.sleep(5)
        browser.save_screenshot(str(Path(__file__).parent.parent / PICTURES / f"{name}.png"))


def test_a_port_that_cannot_be_served_on_is_one_line_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"^--port {taken}: cannot be served on \(Address already in use\); try `"):
            serve_ui(taken, None)
    with pytest.raises(UserError, match=r"^--port 99999: it is a number from 1 to 65535$"):
        serve_ui(99999, None)
