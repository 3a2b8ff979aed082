"""Tracking servers on 127.0.0.1: a real one, one that answers 500, one that never answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Server:
    """``mlflow server`` over a database in ``folder``; may be stopped, continued, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        database, artifacts = f"sqlite:///{self.folder / 'server.db'}", str(self.folder / "artifacts")
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", database, "--artifacts-destination", artifacts]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False


@contextmanager
def real(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    server = Server(folder)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.signal(signal.SIGCONT)
            server.kill()


class _Refuse(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        self.send_error(500)

    do_GET = do_POST = do_PUT = do_PATCH = _refuse

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def broken() -> Iterator[ThreadingHTTPServer]:
    """Answers 500 to everything; ``asked`` counts the requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuse)
    server.asked = 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen(64)
        yield int(opened.getsockname()[1])
