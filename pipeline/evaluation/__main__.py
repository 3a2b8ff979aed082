"""``python -m pipeline.evaluation run --model blockscale --model_args cell=NAME --tasks ...``: lm-eval's own command."""

from lm_eval.__main__ import cli_evaluate

import pipeline.evaluation.adapter  # noqa: F401 (registers the model)

cli_evaluate()
