"""The stages of dvc.yaml: `python -m stages.NAME`."""

from pipeline.base.packages import require_packages

require_packages()
