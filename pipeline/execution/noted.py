"""What DVC has noted in dvc.lock: read without DVC, which takes seconds and waits for whoever runs a stage."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import is_file
from pipeline.execution.stages import study_stages
from pipeline.study import Study

DVC_LOCK = Path("dvc.lock")
Entries = dict[str, Any]


def entries_of(lock: Path) -> Entries:
    """The entry of each stage that the file notes. Raises :class:`UserError` where it is absent or damaged."""
    import yaml

    if not is_file(lock):
        raise UserError(f"{lock}: no such file; run `dvc repro` first")
    try:  # libyaml's loader, where it is there, takes a twentieth of the time
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        stages: Entries = loader(lock.read_text(encoding="utf-8")).get_single_data()["stages"]
        for output in (output for entry in stages.values() for output in entry.get("outs", [])):
            _ = output["path"], output["md5"]
    except (yaml.YAMLError, OSError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{lock}: damaged ({' '.join(str(error).split())[:200]}); run `dvc repro`") from None
    return stages


def stages_up_to_date(study: Study) -> set[str]:
    """The study's stages that DVC would not run; none where dvc.lock tells nothing."""
    try:
        return up_to_date(study_stages(study), entries_of(DVC_LOCK))
    except UserError:
        return set()


def up_to_date(names: Iterable[str], entries: Entries) -> set[str]:
    """Those of the study's stages that DVC would not run; ``names`` has each after those that it needs.

    As of the files that the stage `check` wrote last. What a stage has written is trusted to be there.
    """
    known = {name: entries[name] for name in names if name in entries}
    makers = {out["path"]: (name, out["md5"]) for name, entry in known.items() for out in entry.get("outs", [])}
    current: set[str] = set()
    for name, entry in known.items():
        if all(_same(need, makers, current) for need in entry.get("deps", [])):
            current.add(name)
    return current


def is_uncommitted(path: Path) -> bool:
    """Whether Git would commit the file and has not, or not as it is; never where Git ignores it or there is no Git."""
    command = ["git", "status", "--porcelain", "--", str(path)]
    try:
        return bool(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return False


def md5(path: Path) -> str:
    """A file's MD5, as DVC notes it."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _same(need: Mapping[str, Any], makers: Mapping[str, tuple[str, str]], current: set[str]) -> bool:
    """Whether what a stage reads is as it was: a stage's output, a file, or a folder of several stages' outputs."""
    path, noted = str(need["path"]), need.get("md5")
    if path in makers:
        maker, made = makers[path]
        return maker in current and made == noted
    if is_file(path):
        return md5(Path(path)) == noted
    return all(maker in current for output, (maker, _) in makers.items() if output.startswith(f"{path}/"))
