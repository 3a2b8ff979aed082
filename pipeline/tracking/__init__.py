"""MLflow as a second sink: files are the record, and a run is brought up to date from them, any number of times.

One experiment per study, one run per cell and fingerprint. Nothing a tracker does can stop or slow a stage: training is
followed by a process of its own, and :func:`sync_cell` of a finished stage only warns when the server is away.
"""

from pipeline.tracking.follower import catch_up, follow, following
from pipeline.tracking.store import client, tracking_uri
from pipeline.tracking.sync import sync_cell, sync_report
from pipeline.tracking.ui import serve_ui

__all__ = ["catch_up", "client", "follow", "following", "serve_ui", "sync_cell", "sync_report", "tracking_uri"]
