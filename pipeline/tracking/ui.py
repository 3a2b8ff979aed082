"""MLflow's UI on 127.0.0.1, and where it shows the study's views. As a module: opens an address once it answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import webbrowser
from urllib.parse import urlsplit

from pipeline.base.errors import UserError
from pipeline.base.redact import redacted
from pipeline.tracking.store import client, reason, tracking_uri
from pipeline.tracking.views import view_addresses

PATIENCE_SECONDS = 300
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


def serve_ui(port: int, study_name: str | None) -> None:
    """Replace this process by MLflow's UI over the database that the stages write; name the study's views first."""
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        raise UserError(f"MLFLOW_TRACKING_URI: {redacted(uri)!r} is a server already; open it in a browser")
    _require_free(port)
    server = f"http://127.0.0.1:{port}"
    try:
        views = view_addresses(client(), server, study_name)
    except Exception as error:
        raise UserError(f"MLflow at {redacted(uri)} does not open: {reason(error)}") from None
    print(f"MLflow UI: {server}  (Ctrl-C stops it)", flush=True)
    for name, address in views.items():
        print(f"{name}: {address}", flush=True)
    if sys.stdout.isatty() and (sys.platform == "darwin" or any(os.environ.get(screen) for screen in SCREENS)):
        first = next(iter(views.values()), server)
        subprocess.Popen([sys.executable, "-m", "pipeline.tracking.ui", first], start_new_session=True)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])


def _require_free(port: int) -> None:
    if not 0 < port < 2**16:
        raise UserError(f"--port {port}: it is a number from 1 to 65535")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server: one that has just ended is no bar
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            other = f"try `python -m pipeline ui --port {port % 65535 + 1}`"
            raise UserError(f"--port {port}: cannot be served on ({error.strerror}); {other}") from None


def open_when_up(address: str) -> None:
    """Open the address in the user's browser once its server answers; nothing where it never does."""
    url, end = urlsplit(address), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection((url.hostname, url.port), timeout=1).close()
        except OSError:
            time.sleep(0.5)
            continue
        webbrowser.open(address)
        return


if __name__ == "__main__":
    open_when_up(sys.argv[1])
