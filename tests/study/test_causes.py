"""What decides a result: the files that DVC watches hold all of it, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from pipeline.base import code, paths
from pipeline.base.code import code_of, meaning
from pipeline.base.files import read_json
from pipeline.study import Study, cells, find_cell, load_study, model_config
from pipeline.study.causes import (
    BESIDE_TRAINING,
    STAGES,
    cell_cause,
    stage_cause,
    training_code,
    training_record,
    write_causes,
)
from tests.changed import changed
from tests.conftest import ROOT
from tests.training.conftest import tiny, tiny_root

__all__ = ["tiny", "tiny_root"]
FILES_AND_ERRORS = {
    f"pipeline.base.{name}"
    for name in (
        "code",
        "errors",
        "files",
        "made_of",
        "out_of_memory",
        "packages",
        "paths",
        "progress",
        "ranks",
        "typed_json",
    )
}
VANILLA, BLOCK = "vanilla-s-0", "block-s-4-base-0"
TUNED = "{vanilla-s: {tuning: {status: tuned, of: [vanilla-s], tokens: 1000, trials: 8}}}"
SAME = [
    ("x = 1", "x = 1  # a comment"),
    ("x = 1", '"""A docstring."""\nx = 1'),
    ("def f():\n    return 1", 'def f():\n    """Says what f does."""\n\n    # and why\n    return (1)'),
    ("class A:\n    x = 1", 'class A:\n    """A class."""\n    x = 1\n    """What x is."""'),
    ("f(a, b)", "f(\n    a,\n    b,\n)"),
    ("x = 'a'", 'x = "a"'),
    ("import a", "import a\nif TYPE_CHECKING:\n    import b"),
    ("x = f'{a:<{b}}'", 'x = f"{a:<{b}}"'),
    ("x = 1_000", "x = 1000"),
    ("if a:\n    b()\n", "if a: b()"),
]
OTHER = [
    ("x = 1", "x = 2"),
    ("x = 1", "x = 1.0"),
    ("x = 1", "x = True"),
    ("x = 'a'", "x = b'a'"),
    ("x = None", "x = 'None'"),
    ("a + b", "b + a"),
    ("f(a, b)", "f(a, b=b)"),
    ("x = ''", "x = None"),
    ("def f(x=1): pass", "def f(x=2): pass"),
    ("f('')", "f()"),
    ("x: int = 1", "x: float = 1"),
    ("for x in y:\n    a()\nb()", "for x in y:\n    a()\n    b()"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_comments_docstrings_and_layout_mean_nothing(one: str, other: str) -> None:
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_computes_something_else_means_something_else(one: str, other: str) -> None:
    assert meaning(one) != meaning(other)


def test_modules_keep_their_meaning_with_other_words(root: Path) -> None:
    """What Python itself writes of a module has no comment and another layout; docstrings are replaced."""
    for path in sorted(root.glob("pipeline/**/*.py"))[::3]:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                node.value = ast.Constant("other words")
        assert meaning(ast.unparse(tree)) == meaning(source), path


def test_each_stage_depends_in_dvc_on_what_decides_it(root: Path) -> None:
    stages: dict[str, Any] = {}
    for name in ("dvc.yaml", "search/dvc.yaml", "tune/dvc.yaml"):
        stages |= yaml.safe_load((root / name).read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        body = stage.get("do", stage)
        (module,) = re.findall(r"python -m stages\.(\w+)", body["cmd"])
        if module == "check":
            assert "data/causes" in [next(iter(out)) for out in body["outs"]]
            continue
        cause = "cells/${key}" if module in ("pretrain", "pretrained") else module
        assert f"data/causes/{cause}.json" in body["deps"], name


def test_the_files_hold_keys_and_code_and_follow_the_grid(tiny: Study) -> None:
    paths.CAUSES.parent.unlink()
    write_causes(tiny, 320)
    files = {str(path.relative_to(paths.CAUSES)) for path in paths.CAUSES.rglob("*.json")}
    assert files == {f"{name}.json" for name in STAGES} | {
        f"cells/{VANILLA}.json", f"cells/{BLOCK}.json",
    }  # fmt: skip
    assert read_json(paths.CAUSES / "evaluate.json")["keys"]["evaluate"]["precision"] == "auto"
    assert read_json(paths.CAUSES / f"cells/{BLOCK}.json")["model"]["block_length"] == 4
    times = {path: path.stat().st_mtime_ns for path in paths.CAUSES.rglob("*.json")}
    text = Path("params.yaml").read_text().replace("block: {size: [s],", "block: {size: [],")
    Path("params.yaml").write_text(text)
    write_causes(load_study(), 320)
    left = {path: path.stat().st_mtime_ns for path in paths.CAUSES.rglob("*.json")}
    changed = {paths.CAUSES / "report.json", paths.CAUSES / "cells" / f"{BLOCK}.json"}
    assert {path for path in times if left.get(path) != times[path]} == changed


@pytest.mark.parametrize("stage", ["search", "tune"])
def test_budgets_decide_no_trial(tiny: Study, stage: str) -> None:
    assert stage_cause(changed(tiny, {"pretrain.budgets": [64]}), stage) == stage_cause(tiny, stage)
    assert stage_cause(changed(tiny, {"pretrain.weight_decay": 0.5}), stage) != stage_cause(tiny, stage)


@pytest.mark.parametrize(
    ("edit", "stages"),
    [
        (("learning_rate: 0.01", "learning_rate: 0.02"), {VANILLA, BLOCK, "report", "search", "tune"}),
        (("base: {}", "base: {padding: false}"), {BLOCK, "report", "search", "tune"}),
        (("evaluate: {}", "evaluate: {limit: 3}"), {"evaluate"}),
        (("evaluate: {}", "evaluate: {at: [1536]}"), {VANILLA, BLOCK, "evaluate"}),
        (("short: {prompt: 8", "short: {prompt: 9"), {"benchmark", "search"}),
        (("{vocabulary: 300}", "{vocabulary: 301}"), {"tokenize"}),
        (("batch_size: 8", "batch_size: 8\n  optimizer: muon"), {VANILLA, BLOCK, "report", "search", "tune"}),
        (("evaluate: {}", f"recipes: {TUNED}\nevaluate: {{}}"), {"report", "search", "tune"}),
        (
            ("evaluate: {}", "recipes: {vanilla-s: {learning_rate: 0.1}}\nevaluate: {}"),
            {VANILLA, "report", "search", "tune"},
        ),
        (("test_fraction: 0.1", "test_fraction: 0.2"), {"corpus"}),
        (("log_every: 2", "log_every: 3"), set()),
        (("base: {}", "base: {allocation: [1, 1], embedder: {kind: lookup}}"), set()),
        (("evaluate: {}", "evaluate: {few_shot: 0, samples: 0}"), set()),
        (("batch_size: 8", "batch_size: 8\n  betas: [0.9, 0.95]"), set()),
    ],
)
def test_an_edit_reaches_what_it_decides(tiny: Study, edit: tuple[str, str], stages: set[str]) -> None:
    def causes(study: Study) -> dict[str, object]:
        own = {cell.name: cell_cause(study, cell, 320) for cell in cells(study)}
        return own | {name: stage_cause(study, name) for name in STAGES}

    before, text = causes(tiny), Path("params.yaml").read_text()
    assert edit[0] in text
    Path("params.yaml").write_text(text.replace(*edit))
    after = causes(load_study())
    assert {name for name in before if before[name] != after[name]} == stages


@pytest.mark.parametrize(
    ("stage", "modules"),
    [
        ("search", {"search.allocation", "search.ledger", "search.outputs", "training.objective", "benchmark.cell"}),
        ("search", {"base.device_rates", "base.dominance"}),
        ("tune", {"search.tuning", "search.ladder", "search.optima", "training.objective", "base.dominance"}),
        ("report", {"base.dominance", "results.metrics", "results.curve"}),
        ("benchmark", {"base.device_rates", "generation.engines"}),
        ("tokenize", {"data.round_trip", "data.encoding"}),
        ("corpus", {"data.duplicates", "data.recall"}),
    ],
)
def test_code_behind_a_command_or_among_the_helpers_counts_where_it_decides(
    tiny: Study, stage: str, modules: set[str]
) -> None:
    assert {f"pipeline.{module}" for module in modules} <= stage_cause(tiny, stage)["code"].keys()


def test_no_block_module_decides_a_vanilla_cell(tiny: Study) -> None:
    vanilla, block = (cell_cause(tiny, find_cell(tiny, name), 320)["code"] for name in (VANILLA, BLOCK))
    assert {"pipeline.models.vanilla", "pipeline.models.layers", "pipeline.training.objective"} <= vanilla.keys()
    assert {"pipeline.models.block_transformer", "pipeline.models.embedders"} <= block.keys() - vanilla.keys()


@contextmanager
def executed() -> Iterator[set[str]]:
    """The project's modules of which a function runs in the block, in this thread."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    modules: set[str] = set()
    try:
        yield modules
    finally:
        sys.setprofile(before)
    # A package that only passes names on runs to find them.
    found = {name for name in found if not name.endswith("__init__.py")}
    own = (Path(name).relative_to(ROOT) for name in found if name.startswith(f"{ROOT}/pipeline/"))
    modules |= {".".join(path.with_suffix("").parts) for path in own}


def not_counted(ran: set[str], counted: dict[str, str], without: tuple[str, ...]) -> set[str]:
    return {
        name for name in ran - counted.keys() if not any(f"{name}.".startswith(f"{left_out}.") for left_out in without)
    }


@pytest.mark.parametrize("name", [VANILLA, BLOCK])
def test_what_training_runs_is_counted_or_known_to_decide_nothing(tiny: Study, name: str) -> None:
    from pipeline.training import pretrain
    from pipeline.training.lightning import trainer

    assert trainer
    cell = find_cell(tiny, name)
    with executed() as ran:
        pretrain(tiny, cell)
    counted = training_code(tiny, cell, model_config(tiny, cell, 320))
    aside = {
        "pipeline.models.architecture",  # what it makes of the study's keys is in the fingerprint
        "pipeline.models.config",
        "pipeline.models.costs",  # counts FLOPs for the curve
        "pipeline.training.lightning.recorder",
        "pipeline.training.lightning.resume",
        "pipeline.training.lightning.trainer",
        "pipeline.training.pretrain",
        "pipeline.training.stopping",
        "pipeline.training.validation",
    }
    assert not_counted(ran, counted, BESIDE_TRAINING) == aside
    assert {"pipeline.models.layers", "pipeline.training.objective", "pipeline.data.packing"} <= ran


def test_what_evaluation_and_benchmark_run_is_counted(tiny: Study) -> None:
    from pipeline.benchmark.cell import benchmark
    from pipeline.evaluation import evaluate
    from pipeline.training import pretrain

    cell = find_cell(tiny, BLOCK)
    pretrain(tiny, cell)
    short = changed(tiny, {"benchmark.batch_sizes": [2], "benchmark.repeats": 1, "evaluate.limit": 2})
    for name, run in (("evaluate", evaluate), ("benchmark", benchmark)):
        with executed() as ran:
            run(short, cell)
        counted = stage_cause(tiny, name)["code"]
        assert not_counted(ran, counted, STAGES[name].without) == set()
        assert {module for module in ran - counted.keys() if module.startswith("pipeline.base.")} <= FILES_AND_ERRORS


class Noting:
    """A study that notes which sections are read, but for reads by the code that reads studies."""

    def __init__(self, study: Study) -> None:
        self.study, self.sections = study, set[str]()

    def __getattr__(self, name: str) -> Any:
        reader = sys._getframe(1).f_globals["__name__"]
        if not reader.startswith("pipeline.study"):
            self.sections.add(name)
        return getattr(self.study, name)


@pytest.mark.parametrize("stage", ["evaluate", "benchmark"])
def test_a_stage_reads_the_sections_that_decide_it(tiny: Study, stage: str) -> None:
    from pipeline.benchmark.cell import benchmark
    from pipeline.evaluation import evaluate
    from pipeline.training import pretrain

    pretrain(tiny, find_cell(tiny, VANILLA))
    noting: Any = Noting(changed(tiny, {"benchmark.batch_sizes": [2], "benchmark.repeats": 1}))
    {"evaluate": evaluate, "benchmark": benchmark}[stage](noting, find_cell(tiny, VANILLA))
    read = {key.partition(".")[0] for key in STAGES[stage].keys}
    assert noting.sections | {"hardware"} == read | {"hardware"}


def test_the_published_records_are_what_their_study_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their fingerprints were written before keys were added; they must stay what the study's keys give."""
    monkeypatch.chdir(ROOT / "docs/results/h100")
    study = load_study()
    for cell in cells(study):
        record = read_json(paths.result("pretrain", cell.name))
        vocabulary = 16384
        made = training_record(study, cell, model_config(study, cell, vocabulary), record["provenance"]["data"])
        assert made["cell"] == record["cell"]


def test_a_package_that_only_passes_a_name_on_is_seen_through() -> None:
    found = code_of(["pipeline.training.lightning.data"])
    assert "pipeline.data.batches" in found
    assert "pipeline.data.corpus" not in found
    assert code.imports("pipeline.training.objective") >= {
        "pipeline.models.language_model",
        "pipeline.training.kernels",
    }


def test_templates_beside_a_module_count() -> None:
    found = {Path(name).name for name in code_of(["stages.report"])}
    assert {"report.css", "report.html", "report.js"} <= found
