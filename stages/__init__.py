"""The stages of dvc.yaml: `python -m stages.NAME`."""

import os
import sys

from pipeline.base.packages import require_packages

require_packages()

if sys.argv[0] == "-m" and "DVC_STAGE" in os.environ:  # a stage that DVC runs, and no process of it
    from pipeline.base.command import AROUND
    from pipeline.commands.progress import announced

    AROUND.append(announced)
