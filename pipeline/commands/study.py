"""The studies of `studies/`, each run in a folder of its own under `runs/`, beside the main study and one another.

Such a folder is a DVC repository without Git: params.yaml, dvc.yaml, code and MLflow database are links to the
repository's, and all that the stages make is the folder's own. The cache is the repository's, so that studies of one
corpus read and tokenize it once.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.base.files import write_text
from pipeline.base.paths import LOCK, MLFLOW, PARAMS, RUNS, SEARCH, STUDIES, TUNE
from pipeline.execution.resources import Machine, gpus_of
from pipeline.study import Study, find_cell, load_study

LINKS = ("dvc.yaml", ".dvcignore", ".dvc/plots", "pipeline", "stages", str(LOCK), str(MLFLOW))
APART = {"tune": (TUNE, "docs/tuning.md"), "search": (SEARCH, "docs/search.md")}
"""Sections that plain `dvc repro` does not run, in the order in which they may: their folders and pages."""
MADE = ("data", "checkpoints", "superseded", "trunks", "results", "report", "search", "tune", "logs")
"""What the stages make: each study has its own."""


def run_study(name: str, some: Sequence[str] = (), asked: Sequence[str] = (), benchmark: bool = True) -> None:
    """Run a study, or ``some`` of its cells, to the table of results, or go on with it; without benchmarks if so asked.

    The sections of :data:`APART` that are asked for run first. Raises :class:`UserError`, and SystemExit of a stage.
    """
    study = load_study(_find(name))
    for cell in some:
        find_cell(study, cell)
    having = sections_apart(study)
    for section in asked:
        if section not in having:
            raise UserError(f"{_find(name)}: it has no section {section}; {APART[section][1]} shows one")
    folder = prepare(name)
    print(f"study {name} in {folder}", flush=True)
    for section in (section for section in having if section in asked):
        _command(folder, "dvc", "repro", str(_stage(section)))
    if some or not benchmark:
        _command(folder, "pipeline", "run", *some, *(() if benchmark else ("--no-benchmark",)))
        _command(folder, "stages.report", "--finished")
    else:
        gpus = gpus_of(study)
        side_by_side = bool(gpus) and Machine.of(study, gpus).at_once > 1
        _command(folder, *(("pipeline", "run") if side_by_side else ("dvc", "repro")))
    _command(folder, "pipeline", "show")
    for section in (section for section in having if section not in asked):
        print(f"its section {section} was not run; python -m pipeline study {name} --{section} does")


def sections_apart(study: Study) -> list[str]:
    """The sections of :data:`APART` that a study has."""
    return [section for section in APART if getattr(study, section) is not None]


def _stage(section: str) -> Path:
    return APART[section][0] / "dvc.yaml"


def describe_studies() -> list[tuple[str, str]]:
    """Each study's name and the first line of its file, which says what it asks."""
    return [(file.stem, file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for file in _files()]


def prepare(name: str) -> Path:
    """The study's folder, made where it is absent, once the study is known to be well-formed."""
    file = _find(name)
    study = load_study(file)
    if study.name != name:
        raise UserError(f"{file}: name: {study.name!r} is wrong; it must be {name!r}, as the file")
    folder = RUNS / name
    targets = {link: Path(link) for link in LINKS} | {str(PARAMS): file}
    targets |= {str(_stage(section)): _stage(section) for section in sections_apart(study)}
    targets |= {first: Path(first) for given in _given(study) for first in _reachable(file, given)}
    for link, target in targets.items():
        _link(folder / link, target)
    _own_repository(folder)
    return folder


def _files() -> list[Path]:
    return sorted(STUDIES.glob("*.yaml"))


def _find(name: str) -> Path:
    files = {file.stem: file for file in _files()}
    if name not in files:
        close = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = ", ".join(files) or "none; run from the repository root"
        raise UserError(f"study {name!r} is not in {STUDIES}/; {hint}there are {known}")
    return files[name]


def _given(study: Study) -> Iterator[str]:
    """The files that a study reads, as it names them: relative to the repository root."""
    yield from study.corpus.files
    yield from (path for paths in study.tokenize.indexed.values() for path in paths)
    yield from (model.path for model in study.pretrained.values())
    yield from (path for path in (study.tokenize.tokenizer, study.evaluate.task_data) if path)


def _reachable(file: Path, given: str) -> list[str]:
    """The top-level entries that a given path needs in the study's folder, for it to mean there what it means here."""
    first = Path(given).parts[0]
    if Path(given).is_absolute():
        return []
    if first in (*MADE, ".."):
        raise UserError(f"{file}: {given!r} lies outside the study's own folder; give its absolute path")
    return [path.name for path in Path().glob(first)]


def _link(link: Path, target: Path) -> None:
    relative = Path(os.path.relpath(target, link.parent))
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == relative:
        return
    if link.is_symlink():
        link.unlink()
    try:
        link.symlink_to(relative)
    except FileExistsError:
        raise UserError(f"{link}: in the way of a link to {target}; move it elsewhere") from None


def _own_repository(folder: Path) -> None:
    config = folder / ".dvc" / "config"
    if config.exists():
        return
    asked = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True)
    if asked.returncode:
        raise UserError(f"no DVC repository here ({asked.stderr.strip()}); run from the repository root")
    cache, page = f"[cache]\n    dir = {asked.stdout.strip()}\n", "[plots]\n    html_template = plots/page.html\n"
    write_text(config, f"[core]\n    no_scm = true\n    analytics = false\n{cache}{page}")


def _command(folder: Path, module: str, *arguments: str) -> None:
    """Run `python -m MODULE ARGUMENTS` there. It gets Ctrl-C too and ends in its own time, so that nothing is lost."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=folder, env=os.environ | {"PATH": path})
    interrupted = False
    while process.poll() is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    if process.returncode:
        raise SystemExit(process.returncode)
