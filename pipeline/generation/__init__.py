"""Text generation with caches, near the hardware's limit. Torch is loaded with the first name that is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.generation.request import generate
    from pipeline.generation.sampling import Sampling
    from pipeline.generation.session import Session

__all__ = ["Sampling", "Session", "generate"]

_MODULES = {"generate": "request", "Sampling": "sampling", "Session": "session"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.generation.{_MODULES[name]}"), name)
