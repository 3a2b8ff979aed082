"""lm-eval's own command with this project's models: ``run --model blockscale --model_args cell=NAME --tasks ...``."""

from lm_eval.__main__ import cli_evaluate

import pipeline.evaluation.adapter  # noqa: F401 (registers the model)

cli_evaluate()
