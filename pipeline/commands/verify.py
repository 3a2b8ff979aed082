"""`python -m pipeline verify`: whether results, checkpoints and report are what the pipeline wrote."""

from __future__ import annotations

import argparse

from pipeline.base.errors import UserError
from pipeline.study.arguments import study_of


def run(arguments: argparse.Namespace) -> None:
    """Print a line a check. Raises :class:`UserError` where one fails."""
    from pipeline.results.verify import verify

    checks = failed = 0
    for check in verify(study_of(arguments)):
        checks += 1
        failed += bool(check.problems)
        print(f"{'FAILED' if check.problems else 'ok'}  {check.name}", flush=True)
        for problem in check.problems:
            print(f"        {problem}", flush=True)
    if failed:
        raise UserError(f"{failed} of {checks} checks failed")
