"""Evaluation: held-out loss, zero-shot tasks through lm-eval, long context, needle in a haystack, samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.evaluation.cell import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name != "evaluate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.evaluation.cell import evaluate

    return evaluate
