"""Vanilla and Block Transformers: configurations, modules, checkpoints and costs.

``build``, ``initialise`` and ``LanguageModel`` are loaded on first use, so that planning never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.models.factory import build, initialise
    from pipeline.models.language_model import LanguageModel

__all__ = ["LanguageModel", "build", "initialise"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.models import factory

    return getattr(factory, name)
