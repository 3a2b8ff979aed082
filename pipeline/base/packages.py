"""Whether this Python is the project's: one line instead of a traceback where it has not what is needed."""

from __future__ import annotations

import sys
from importlib.util import find_spec

OLDEST = (3, 11)
NEEDED = (
    "torch", "lightning", "dvc", "mlflow", "omegaconf", "ruamel.yaml", "lm_eval", "optuna", "tokenizers", "datasets",
    "safetensors", "numpy", "scipy", "matplotlib", "jinja2", "filelock", "tqdm", "yaml", "pyarrow",
    "huggingface_hub", "markupsafe", "sqlalchemy", "rich", "psutil", "altair", "vl_convert", "pandas",
)  # fmt: skip
"""What the code imports wherever it runs; pyproject.toml declares it."""


def require_packages() -> None:
    """End the process unless every package is there. Nothing is imported for it."""
    if sys.version_info < OLDEST:
        version, oldest = sys.version.split()[0], ".".join(map(str, OLDEST))
        sys.exit(f"error: this Python ({sys.executable}) is {version}, and {oldest} or newer is needed; {advice()}")
    missing = [name for name in NEEDED if not _is_there(name)]
    if missing:
        sys.exit(f"error: {lacks(missing)}")


def lacks(missing: list[str]) -> str:
    """The line that names what this Python has not."""
    named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return f"this Python ({sys.executable}) has no {named}; {advice()}"


def advice() -> str:
    """How to get a Python that has all."""
    return "activate .venv (source .venv/bin/activate), which `make licences` builds"


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # no parent package, or a module that something put in its place
        return name in sys.modules
