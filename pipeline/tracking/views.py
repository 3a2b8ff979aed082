"""Saved views of the study's experiment: MLflow's UI opens on them, and its page lists them by name.

MLflow (3.15 and later) keeps a saved view as a tag of the experiment, whose value is JSON with the view's ``name``, its
times and its ``state``: ``deflate;`` and the base64 of the state's zlib-packed JSON. What a state may hold is what the
UI itself writes: which runs, which columns, which charts. A browser test opens each view (``tests/test_views.py``).
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW_TAG = "mlflow.sharedViewState."
VIEWS = ("pareto", "table", "curves", "probes")
PRESENT_CELLS = "tags.kind = 'cell' and tags.superseded IS NULL and tags.dvc_experiment IS NULL"
RATE, MEMORY = "_tokens_per_second", "_bytes_per_sample"
PROBES = ("needle", "copy", "recall", "loss_at")
"""How the names of what is measured beside loss and tasks begin."""

State = dict[str, Any]


@dataclass(frozen=True)
class View:
    """What the UI shows of a study's cells. ``charts`` are the UI's chart cards; without any it shows the table."""

    name: str
    columns: tuple[str, ...]
    charts: list[State] = field(default_factory=list)

    def state(self, metrics: Iterable[str], average_by: str | None) -> State:
        """The UI's state. Each of ``metrics`` has a deleted card: else the UI adds a chart of its own for it."""
        unwanted = [
            _card("BAR", str(turn), "rest", metricKey=key, isGenerated=True, deleted=True)
            for turn, key in enumerate(metrics)
        ]
        average = {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": average_by}]}
        return {
            "searchFilter": PRESENT_CELLS,
            "orderByKey": _metric("loss"),
            "orderByAsc": True,
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": [*self.charts, *unwanted],
            "compareRunSections": [_section("shown", self.name), _section("rest", "Model metrics", display=False)],
            "isAccordionReordered": True,
            "groupBy": average if average_by and self.charts else None,
        }


def write_views(mlflow: MlflowClient, experiment: str, metrics: Iterable[str], several_seeds: bool) -> None:
    """Write the study's views, for the metrics that its cells have; equal ones stay as they are.

    Charts average the runs of a model where there are several seeds.
    """
    known = sorted(metrics)
    tags = mlflow.get_experiment(experiment).tags
    for key, view in _views(known).items():
        state = view.state(known, "model" if several_seeds else None)
        if _state_in(tags.get(VIEW_TAG + key)) != state:
            mlflow.set_experiment_tag(experiment, VIEW_TAG + key, _envelope(view.name, state))


def view_addresses(mlflow: MlflowClient, server: str, study_name: str | None) -> dict[str, str]:
    """Where the UI shows each view of the study, by the view's name; none before the study's report was made."""
    experiment = mlflow.get_experiment_by_name(study_name) if study_name else None
    if experiment is None:
        return {}
    return {
        json.loads(experiment.tags[VIEW_TAG + key])["name"]: _address(server, experiment.experiment_id, key)
        for key in VIEWS
        if VIEW_TAG + key in experiment.tags
    }


def _address(server: str, experiment: str, key: str) -> str:
    mode = "TABLE" if key == "table" else "CHART"
    sidebar = "workflowType=machine_learning"
    return f"{server}/#/experiments/{experiment}/runs?viewStateShareKey={key}&compareRunsMode={mode}&{sidebar}"


def _views(metrics: list[str]) -> dict[str, View]:
    settings = [key.removesuffix(MEMORY) for key in metrics if key.endswith(MEMORY)]
    settings = [name for name in settings if name + RATE in metrics]
    rates, memory = [name + RATE for name in settings], [name + MEMORY for name in settings]
    quality = [key for key in ("loss", "bits_per_byte", "non_embedding_parameters") if key in metrics]
    identity = [_param(key) for key in ("family", "size", "block_length")]
    columns = (*identity, *(_metric(key) for key in [*quality, *rates[:2], *memory[:1]]))
    pareto = [_scatter(key, "loss") for key in [*rates, *memory]]
    curves = [
        _line("validation_loss", "tokens"),
        _line("validation_loss", "training_flops"),
        _line("train_loss", "tokens"),
    ]
    probes = [_card("BAR", key, "shown", metricKey=key) for key in metrics if key.startswith(PROBES)]
    views = {
        "pareto": View("Pareto", columns, charts=pareto),
        "table": View("Table", columns),
        "curves": View("Curves", columns, charts=curves),
        "probes": View("Probes", columns, charts=probes),
    }
    return {key: view for key, view in views.items() if view.charts or key == "table"}


def _scatter(x: str, y: str) -> State:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return _card("SCATTER", f"{y} against {x}", "shown", runsCountToCompare=100, **axes)


def _line(metric: str, along: str) -> State:
    axes = {"metricKey": metric, "selectedMetricKeys": [metric], "selectedXAxisMetricKey": along, "xAxisKey": "metric"}
    return _card("LINE", f"{metric} against {along}", "shown", lineSmoothness=0, useGlobalXaxisKey=False, **axes)


def _card(kind: str, uuid: str, section: str, **others: Any) -> State:
    return {"type": kind, "uuid": uuid, "metricSectionId": section, "deleted": False, "isGenerated": False} | others


def _section(uuid: str, name: str, display: bool = True) -> State:
    """A section of charts, two side by side."""
    return {"uuid": uuid, "name": name, "display": display, "isReordered": True, "deleted": False, "columns": 2}


def _metric(key: str) -> str:
    return f"metrics.`{key}`"


def _param(key: str) -> str:
    return f"params.`{key}`"


def _envelope(name: str, state: State) -> str:
    now = time.time_ns() // 1_000_000
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": packed})


def _state_in(value: str | None) -> State | None:
    if value is None:
        return None
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: State = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state
