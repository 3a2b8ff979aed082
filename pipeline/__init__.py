"""Scaling studies of vanilla and Block Transformers: quality against generation speed and memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.packages import require_packages

if TYPE_CHECKING:
    from pipeline.analysis.page.frames import Frames

if sys.argv[:1] == ["-m"]:  # `python -m pipeline...` is being found: say what is missing before anything imports it
    require_packages()


def load(folder: Path | str = ".") -> Frames:
    """A study's cells, results, curves and probes as pandas frames; see :class:`pipeline.analysis.page.frames.Frames`.

    ``folder``: a checkout whose results are in it. Raises :class:`pipeline.base.errors.UserError` where none are.
    """
    from pipeline.analysis.page import frames

    return frames.load(folder)
