"""Initial weights, by ``pretrain.initialization``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.study import Study, find_cell
from pipeline.training.job import Job
from pipeline.training.start import initial_model
from tests.changed import changed


def weights(study: Study, name: str, std: float, depth_scaled: bool) -> dict[str, Tensor]:
    keys = {"pretrain.initialization.std": std, "pretrain.initialization.depth_scaled": depth_scaled}
    return initial_model(Job.of(changed(study, keys), find_cell(study, name))).state_dict()


@pytest.mark.parametrize(("name", "layers"), [("vanilla-s-0", 2), ("block-s-4-base-0", 1)])
def test_std_and_depth_scale_the_same_draws(tiny: Study, name: str, layers: int) -> None:
    """Also each decoder of a block transformer by its own depth; its projection between parts keeps its deviation."""
    base = weights(tiny, name, 0.02, False)
    scaled = weights(tiny, name, 0.01, True)
    for key, weight in base.items():
        factor = 0.5 if weight.ndim == 2 and "expansion" not in key else 1.0
        if key.endswith(("attention_output.weight", "feed_forward_out.weight")):
            factor *= (2 * layers) ** -0.5
        torch.testing.assert_close(scaled[key], weight * factor)
    assert base["token_decoder.head.weight" if "block" in name else "head.weight"].std() == pytest.approx(
        0.02, rel=0.05
    )
