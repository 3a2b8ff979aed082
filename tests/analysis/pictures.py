"""Reports whose PNG files nobody looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def without_png() -> Iterator[None]:
    """PNG files are empty, and figures are not laid out for them, which halves a report's time; SVG is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    class Unseen(FigureCanvasAgg):
        def print_png(self, filename_or_obj: Any, **options: Any) -> None:
            """Write nothing."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg", Unseen)
        yield
