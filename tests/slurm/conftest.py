"""A SLURM for the tests of a session, and studies that are handed over to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import repository, study
from tests.faults.stages import start
from tests.slurm.cluster import Cluster, missing, running, wait
from tests.training.conftest import tiny_root

__all__ = ["repository", "study", "tiny_root"]


@pytest.fixture(scope="session")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = missing()
    if why:
        pytest.skip(why)
    with running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def cluster(daemons: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, to which this test's commands belong; its queue is empty before and after."""
    for name, value in daemons.environment.items():
        monkeypatch.setenv(name, value)
    yield daemons
    daemons.clear()


class Handed:
    """The study of a DVC repository on a cluster: commands that end at once, and what came of them."""

    def __init__(self, repository: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = repository, cluster

    def run(self, *arguments: str, command: str = "run") -> str:
        """`python -m pipeline run`, or another command, to a good end; what it printed."""
        code, output, errors = self._ended(command, *arguments)
        assert code == 0, errors
        return output

    def refused(self, *arguments: str, command: str = "run") -> str:
        """The one error line of such a command."""
        code, _, errors = self._ended(command, *arguments)
        (line,) = [line for line in errors.splitlines() if line]
        assert code == 1
        return line

    def _ended(self, *arguments: str) -> tuple[int, str, str]:
        process = start("pipeline", *arguments, PYTHONPATH=str(self.folder))
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    def settle(self, seconds: float = 900) -> None:
        """Wait until no job is queued any more."""
        wait(lambda: not self.cluster.jobs(), seconds, "the end of the study's jobs")

    def edit(self, old: str, new: str) -> None:
        params = self.folder / "params.yaml"
        text = params.read_text()
        assert old in text
        params.write_text(text.replace(old, new, 1))

    def slurm(self, **keys: object) -> None:
        """Set keys of ``run.slurm``."""
        with (self.folder / "params.yaml").open("a") as opened:
            opened.write("run:\n  slurm:\n" + "".join(f"    {key}: {value}\n" for key, value in keys.items()))


@pytest.fixture
def handed(repository: Path, cluster: Cluster) -> Handed:
    return Handed(repository, cluster)
