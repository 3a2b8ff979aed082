"""DVC's part in a run: what is out of date, what its cache can give back, and what it takes note of, a stage at a time.

What `dvc repro` does between deciding about a stage and writing dvc.lock is cut in two, before the stage's command
(:meth:`Repository.begin`) and after it (:meth:`Repository.note`), so that commands run side by side. Each half holds
DVC's lock for its own time and waits for it: any number of processes may do this at once. A kill leaves a stage that
DVC has not noted, which is begun again and finds its work.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import write_text
from pipeline.execution.stages import CHECK, Stage, Stages

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
ENTRY, TOP_LEVEL = re.compile(r"^(?=  [^\s:])", re.MULTILINE), re.compile(r"^\S.*", re.MULTILINE)
"""Where a stage's entry begins in dvc.lock, and lines that are part of none."""


class Begun(Enum):
    """What a stage that is begun needs: nothing, nothing any more, or its command."""

    CURRENT = "up to date"
    RESTORED = "restored from DVC's cache"
    TO_RUN = "to run"


class Repository:
    """The DVC repository of the working directory. Raises :class:`UserError` where there is none, and DVC's errors."""

    def __init__(self) -> None:
        with _dvc_says():
            from dvc.repo import Repo

            logging.getLogger("dvc").setLevel(logging.CRITICAL)  # what it raises tells; no progress bars
            self._repo = Repo(_wait_for_lock=True)
        if Path(self._repo.root_dir) != Path.cwd():
            raise UserError(f"run from the repository root, {self._repo.root_dir}")
        self._loaded: dict[str, Any] = {}

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The stages of dvc.yaml, each after those that it needs; none of the search's or the tuning's."""
        with self._locked():
            index = self._repo.index
            self._loaded = {stage.name: stage for stage in index.stages if stage.relpath == PIPELINE}
            stages = {name: _stage(stage, index.graph) for name, stage in self._loaded.items()}
        order = TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order()
        return {name: stages[name] for name in order}

    @property
    def root(self) -> str:
        """Its folder."""
        return str(self._repo.root_dir)

    def environment(self, name: str) -> dict[str, str]:
        """What DVC adds to the environment of a stage's command."""
        return {"DVC_ROOT": self.root, "DVC_STAGE": name}

    def changed(self, name: str) -> bool:
        """Whether the stage is out of date by the files as they are now."""
        with self._locked():
            return bool(self._stage(name).changed())

    def out_of_date(self, stages: Stages) -> dict[str, bool]:
        """The stages that have changed or follow from such ones, in order, and whether each has changed itself.

        The stage `check`, which always runs, is none of them.
        """
        listed: dict[str, bool] = {}
        for name, stage in stages.items():
            changed = name != CHECK and self.changed(name)
            if changed or not listed.keys().isdisjoint(stage.needs):
                listed[name] = changed
        return listed

    def begin(self, name: str) -> Begun:
        """Decide about a stage whose needs are up to date, and make way for its command if it is to run.

        Outputs that do not persist are removed, as DVC does, or restored from its cache, and noted.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        with self._locked():
            stage = self._stage(name)
            if not stage.changed():
                return Begun.CURRENT
            stage.remove_outs(ignore_remove=False, force=False)
            try:
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                return Begun.TO_RUN
            self._note(stage)
            return Begun.RESTORED

    def note(self, name: str) -> None:
        """Take note of the outputs of a stage whose command has ended well: into DVC's cache and dvc.lock."""
        with self._locked():
            self._note(self._stage(name))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other DVC command that reads or writes the study's files out while the block runs.

        Raises :class:`UserError` where one is at work, such as `dvc repro`.
        """
        from dvc.rwlock import RWLOCK_FILE, RWLockFileCorruptedError, rwlock

        # DVC tells holders apart by process and command line, so that this process's own stages are let in.
        own: tuple[Any, ...] = (self._repo.tmp_dir, self._repo.fs, " ".join(sys.argv), [], [self._repo.root_dir], False)
        with _dvc_says():
            try:
                holding = ExitStack()
                holding.enter_context(rwlock(*own))
            except RWLockFileCorruptedError:  # a kill cut it off
                (Path(self._repo.tmp_dir) / RWLOCK_FILE).unlink()
                holding.enter_context(rwlock(*own))
        with holding:
            yield

    def _note(self, stage: Any) -> None:
        cached = all(out.use_cache for out in stage.outs if not (out.is_metric or out.is_plot))
        stage.save(run_cache=cached)
        stage.commit()
        self._write_lock(stage)

    def _write_lock(self, stage: Any) -> None:
        """DVC writes dvc.lock in place, where a kill could cut it off, and parses all of it for each stage."""
        from dvc.stage.serialize import to_lockfile
        from dvc.utils.serialize import dumps_yaml

        before = ""
        with suppress(FileNotFoundError):
            before = Path(LOCK).read_text(encoding="utf-8")
        entry = str(dumps_yaml({"schema": "2.0", "stages": to_lockfile(stage)}))
        write_text(LOCK, replaced_entry(before, entry))
        self._repo.scm_context.track_file(LOCK)

    def _stage(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._repo.stage.load_one(name=name)
        return self._loaded[name]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from dvc.repo import lock_repo

        with _dvc_says(), lock_repo(self._repo), self._repo.scm_context(quiet=True):
            yield


def replaced_entry(before: str, entry: str) -> str:
    """The text of dvc.lock with a stage's entry put in or replaced; ``entry`` is a dvc.lock of that stage alone."""
    head, new = ENTRY.split(entry)
    if not before.startswith(head) or TOP_LEVEL.findall(before) != TOP_LEVEL.findall(head):
        return _merged(before, entry)
    entries = {text.partition("\n")[0]: text for text in ENTRY.split(before)[1:]}
    entries[new.partition("\n")[0]] = new
    return head + "".join(entries.values())


def _merged(before: str, entry: str) -> str:
    """The same for a dvc.lock that is not written as DVC writes it, or has more in it."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    noted = parse_yaml_for_update(before, LOCK)
    new = parse_yaml_for_update(entry, LOCK)
    noted.setdefault("schema", new["schema"])
    noted.setdefault("stages", {}).update(new["stages"])
    return str(dumps_yaml(noted))


def _stage(stage: Any, graph: Any) -> Stage:
    needs = sorted(need.name for need in graph.successors(stage))
    return Stage(stage.name, stage.cmd, tuple(needs))


@contextmanager
def _dvc_says() -> Iterator[None]:
    """DVC's error as one line."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        raise UserError(f"DVC: {' '.join(str(error).split())}") from None
