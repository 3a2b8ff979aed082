"""`python -m pipeline.tracking STUDY CELL`: follow a cell while standard input is open."""

import sys
from functools import partial

from pipeline.tracking import follow, sync_cell, sync_report

study, what = sys.argv[1:]
follow(partial(sync_report, study) if what == "report" else partial(sync_cell, study, what))
