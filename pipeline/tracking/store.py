"""Where the runs are kept: MLflow's address, its SQLite database beside the study, and a client for it."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.base import paths
from pipeline.base.files import replacing
from pipeline.base.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
SQLALCHEMY_ASIDE = "(raised as a result of"  # before what went wrong
ARTIFACTS = "mlruns"  # beside the database
DVC_COPIES = (".dvc", "tmp", "exps")
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # else minutes per request


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite database in the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{_repositorys_database()}"


def dvc_experiment() -> str | None:
    """The name of the DVC experiment that this process is a stage of; ``None`` in the study itself."""
    return os.environ.get("DVC_EXP_NAME") or None


def is_local() -> bool:
    """Whether the runs lie in an SQLite database, and their artifacts in files beside it."""
    return tracking_uri().startswith(SQLITE)


def is_kept() -> bool:
    """Whether there may be runs: a server, or a database that some study has made."""
    return not is_local() or _database().exists()


def artifact_location(study_name: str) -> str:
    """The folder of a new experiment's artifacts, as the URI that MLflow takes."""
    return _beside_database(f"{ARTIFACTS}/{study_name}").as_uri()


def lock() -> FileLock:
    """Held while experiments and runs are looked up and made, so that processes don't make them twice."""
    return FileLock(_beside_database("mlflow.lock"))


def client() -> MlflowClient:
    """A client for :func:`tracking_uri`. A lock keeps processes from creating the database at the same time."""
    for key, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **PATIENCE}.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what is warned of
    from mlflow import MlflowClient

    with lock():
        if is_local():
            _make(_database())
            _follow_the_database(_database())
        return MlflowClient(tracking_uri())


def reason(error: Exception) -> str:
    """What went wrong between here and the tracker, in one line without passwords."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(SQLALCHEMY_ASIDE)]
    return redacted(lines[0]) if lines else type(error).__name__


def _repositorys_database() -> Path:
    """The repository's, also from the copy of it that DVC runs an experiment in and removes afterwards."""
    path = paths.MLFLOW.resolve()
    for copies in path.parents:
        if copies.parts[-3:] == DVC_COPIES:
            name, *inside = path.relative_to(copies).parts
            # `dvc exp run --temp` makes its copies one folder further down than the queue does.
            return Path(*copies.parts[:-3], *(inside[1:] if name == "standalone" else inside))
    return path


def _database() -> Path:
    """The SQLite database, the same for every study that writes it; the repository's where a server keeps the runs."""
    uri = tracking_uri()
    if not uri.startswith(SQLITE):
        return _repositorys_database()
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).resolve()


def _beside_database(name: str) -> Path:
    return _database().parent / name


def _make(database: Path) -> None:
    """Make a database where there is none, whole or not at all: MLflow mends none that a kill has cut off halfway."""
    from mlflow import MlflowClient

    if not (database.exists() and database.stat().st_size):
        with replacing(database) as temporary:
            MlflowClient(f"{SQLITE}{temporary}")
        for left in database.parent.glob(f".{database.name}.*-journal"):  # of those that kills have cut off
            left.unlink()


def _follow_the_database(database: Path) -> None:
    """Point every experiment and run to the artifacts beside the database, in one transaction.

    MLflow makes artifact locations absolute: a copied or moved study would else write into the folder that it came
    from. Locations that are not ``.../mlruns/EXPERIMENT`` are the user's own, and stay.
    """
    if not (database.exists() and database.stat().st_size):
        return
    with closing(sqlite3.connect(database)) as opened, opened:
        if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return
        for number, old in opened.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
            new = _moved_along(old or "", database.parent)
            if new is None:
                continue
            opened.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, number))
            opened.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (new, len(old) + 1, number, len(old) + 1, f"{old}/"),
            )


def _moved_along(location: str, folder: Path) -> str | None:
    """The experiment's location under ``folder``, in the form that it has; ``None`` where it need not change."""
    url = urlsplit(location)
    if url.scheme not in ("", "file"):
        return None
    path = Path(unquote(url.path) if url.scheme else location)
    if path.parent.name != ARTIFACTS or path.parent == folder / ARTIFACTS:
        return None
    here = folder / ARTIFACTS / path.name
    return here.as_uri() if url.scheme else str(here)
