"""Text generation with caches, near the hardware's limit."""

from pipeline.generation.engine import generate
from pipeline.generation.sampling import Sampling
from pipeline.generation.session import Session

__all__ = ["Sampling", "Session", "generate"]
