"""Scaling studies of vanilla and Block Transformers: quality against generation speed and memory."""

import sys

from pipeline.base.packages import require_packages

if sys.argv[:1] == ["-m"]:  # `python -m pipeline...` is being found: say what is missing before anything imports it
    require_packages()
