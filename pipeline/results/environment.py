"""What a number was measured with: device, versions, code revision."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.base import paths
from pipeline.base.files import is_file, read_object, sha256
from pipeline.results.records import Environment, Provenance

PACKAGES = ("torch", "lightning", "numpy", "tokenizers", "safetensors", "lm_eval", "transformers", "triton")


def describe(device: str, threads: int, precision: str) -> Environment:
    """The record that every result carries. ``device``: what :func:`pipeline.device.device_name` returns."""
    revision, dirty = git_revision()
    return Environment(device, threads, precision, version("torch"), platform.python_version(), revision, dirty)


def provenance(checkpoint: Path) -> Provenance:
    """What made the weights of a checkpoint folder, and what a number about them is made with."""
    config = read_object(checkpoint / "config.json")
    return Provenance(
        params=_hash(paths.PARAMS),
        data=config.get("corpus", ""),
        tokenizer=_hash(checkpoint / "tokenizer.json"),
        weights=_hash(checkpoint / "model.safetensors"),
        lock=_hash(paths.LOCK),
        versions={name: version for name in PACKAGES if (version := _version(name))},
    )


def _hash(path: Path) -> str:
    return sha256(path) if is_file(path) else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def git_revision() -> tuple[str, bool]:
    """The commit checked out and whether tracked files differ from it; outside a checkout ``("unknown", False)``."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return head, bool(status.strip())
