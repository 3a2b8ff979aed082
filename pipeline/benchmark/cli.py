"""`python -m pipeline benchmark`: a cell's generation speed, also before it is trained."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from pipeline.files import write_json
from pipeline.study import find_cell, load_study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", help="a cell, as `python -m pipeline plan` lists them")
    parser.add_argument("--random-weights", action="store_true", help="measure the cell's architecture, untrained")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the record as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Measure in the study's settings; the study's own results are left alone."""
    study = load_study(arguments.params)
    cell = find_cell(study, arguments.cell)
    from pipeline.benchmark.cell import benchmark

    result = benchmark(study, cell, random_weights=arguments.random_weights)
    for name, setting in result.settings.items():
        assert setting.roofline is not None
        print(
            f"{cell.name} {name}: {setting.tokens_per_second:,.0f} tokens/s at batch {setting.batch}, "
            f"{setting.roofline_fraction:.0%} of the limit (bound by {setting.roofline.binding}), "
            f"{setting.bytes_per_sample / 1e6:,.2f} MB a sample, "
            f"{setting.latency_per_token * 1e3:.2f} ms a token at batch 1"
        )
    if arguments.output:
        write_json(arguments.output, dataclasses.asdict(result))
