"""`python -m pipeline benchmark`: cells' generation speed, also before they are trained."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.files import write_json
from pipeline.study import find_cell, load_study, whole_cells
from pipeline.study.schema import Setting

if TYPE_CHECKING:
    from pipeline.results.records import BenchmarkResult
    from pipeline.study import Cell, Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("cell", nargs="*", help="cells, as `python -m pipeline plan` lists them; all where left out")
    parser.add_argument("--random-weights", action="store_true", help="measure the cells' architectures, untrained")
    parser.add_argument(
        "--setting",
        action="append",
        type=_setting,
        metavar="PROMPT+NEW",
        help="tokens of prompt and output to measure instead of the study's settings, such as 128+8192; repeatable",
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="timed runs of each, instead of the study's")
    parser.add_argument(
        "--memory-fraction",
        type=float,
        metavar="F",
        help="the part of a GPU's free memory that a batch may fill, instead of the study's",
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave out transformers, if the study asks for it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the records as JSON, after every cell")


def run(arguments: argparse.Namespace) -> None:
    """Measure as the study has it or as the arguments do; the study's own results are left alone."""
    study = _study(arguments)
    wanted = [find_cell(study, name) for name in arguments.cell] or _all_cells(study, arguments.random_weights)
    from pipeline.benchmark.cell import benchmark

    records = []
    for cell in wanted:
        result = benchmark(study, cell, random_weights=arguments.random_weights)
        _tell(result)
        records.append(dataclasses.asdict(result))
        if arguments.output:
            write_json(arguments.output, records)


def _study(arguments: argparse.Namespace) -> Study:
    """The study with the keys of ``benchmark`` that options change, checked as if they stood in it."""
    given = {"repeats": arguments.repeats, "memory_fraction": arguments.memory_fraction}
    given["baselines"] = "false" if arguments.no_baselines else None
    options = [f"benchmark.{key}={value}" for key, value in given.items() if value is not None]
    study = load_study(arguments.params, [*arguments.set, *options])
    if not arguments.setting:
        return study
    settings = {f"{setting.prompt}+{setting.new_tokens}": setting for setting in arguments.setting}
    return dataclasses.replace(study, benchmark=dataclasses.replace(study.benchmark, settings=settings))


def _setting(text: str) -> Setting:
    prompt, _, new = text.partition("+")
    if not (prompt.isdecimal() and new.isdecimal() and int(prompt) and int(new)):
        raise argparse.ArgumentTypeError(f"{text!r} is not PROMPT+NEW in tokens, such as 128+8192")
    return Setting(int(prompt), int(new))


def _all_cells(study: Study, random_weights: bool) -> list[Cell]:
    """The study's cells, each once for all budgets; without weights, those whose shape the study tells."""
    return [cell for cell in whole_cells(study) if not (random_weights and cell.family == "pretrained")]


def _tell(result: BenchmarkResult) -> None:
    for name, setting in result.settings.items():
        assert setting.roofline is not None
        print(
            f"{result.cell.name} {name}: {setting.tokens_per_second:,.0f} tokens/s at batch {setting.batch}, "
            f"{setting.roofline_fraction:.0%} of the limit (bound by {setting.roofline.binding}), "
            f"{setting.bytes_per_sample / 1e6:,.2f} MB per sample, "
            f"{setting.latency_per_token * 1e3:.2f} ms per token at batch 1",
            flush=True,
        )
