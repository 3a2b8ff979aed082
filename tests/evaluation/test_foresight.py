"""A model that sees what it is to predict is refused; every honest one passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.evaluation.foresight import refuse_foresight
from pipeline.evaluation.scoring import Scorer
from pipeline.models import LanguageModel, build
from tests.models.variants import VARIANTS, VOCABULARY

SLIGHT = 1e-4
DOCUMENTS = [np.random.default_rng(number).integers(VOCABULARY, size=90 + 40 * number) for number in range(12)]


def model(name: str) -> LanguageModel:
    torch.manual_seed(0)
    return build(VARIANTS[name]).eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_honest_model_passes(name: str) -> None:
    honest = model(name)
    for padded in (True, False):
        refuse_foresight(Scorer(honest, padded=padded), DOCUMENTS)
    refuse_foresight(Scorer(honest.to(torch.bfloat16)), DOCUMENTS)


def leaking(name: str, part: str, leak: Callable[[Tensor], Tensor], much: float = SLIGHT) -> LanguageModel:
    """The model, with a little of what ``leak`` makes of a part's output added to it."""
    planted = model(name)
    planted.get_submodule(part).register_forward_hook(lambda module, given, output: output + much * leak(output))
    return planted


def next_one(x: Tensor) -> Tensor:
    return x.roll(-1, dims=1)


def whole(x: Tensor) -> Tensor:
    return x.mean(dim=1, keepdim=True).expand_as(x)


def batch(x: Tensor) -> Tensor:
    return x.mean(dim=0, keepdim=True).expand_as(x)


def neighbour(x: Tensor) -> Tensor:
    return x.roll(1, dims=0)


FUTURE = "the model sees the future: what predicts token {} of a held-out text changes with {}$"
OTHERS = "the model sees other texts of its batch: what predicts token {} of a held-out text changes with them$"


@pytest.mark.parametrize(
    ("name", "part", "leak", "message"),
    [
        ("vanilla", "embedding", next_one, FUTURE),
        ("vanilla", "embedding", whole, FUTURE),
        ("vanilla", "embedding", batch, OTHERS),
        ("vanilla", "embedding", neighbour, OTHERS),
        ("lookup_prefix", "embedder", next_one, FUTURE),  # one block ahead: the one that is predicted
        ("cross_attention_block_20", "embedder", next_one, FUTURE),
        ("lookup_prefix", "embedder", batch, OTHERS),
        ("lookup_prefix", "token_decoder.stack", next_one, FUTURE),
        ("lookup_prefix", "token_decoder.stack", whole, FUTURE),  # all of the block
        ("megabyte", "token_decoder.stack", next_one, FUTURE),
        ("cls_cross_attention", "token_decoder.decoder", next_one, FUTURE),
        ("cross_attention_block_20", "token_decoder.decoder", whole, FUTURE),
        ("lookup_prefix", "token_decoder.stack", batch, OTHERS),  # blocks of other texts, and this text's later ones
    ],
)
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
def test_a_planted_leak_is_refused(
    name: str, part: str, leak: Callable[[Tensor], Tensor], message: str, padded: bool
) -> None:
    either = f"{FUTURE.format('[0-9]+', '(itself|token [0-9]+)')}|{OTHERS.format('[0-9]+')}"
    with pytest.raises(UserError, match=either) as raised:
        refuse_foresight(Scorer(leaking(name, part, leak), padded=padded), DOCUMENTS)
    if leak in (next_one, whole) and part != "token_decoder.stack":
        assert re.match(message.format("[0-9]+", "(itself|token [0-9]+)"), str(raised.value))


@pytest.mark.parametrize("name", ["vanilla", "lookup_prefix"])
def test_a_leak_on_the_way_of_shared_beginnings_alone_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Choices of an answer are scored by ``branch``."""
    planted = model(name)
    honest = planted.branch

    def dishonest(*arguments: Any) -> Tensor:
        hidden = honest(*arguments)
        return hidden + SLIGHT * next_one(hidden)

    monkeypatch.setattr(planted, "branch", dishonest)
    with pytest.raises(UserError, match="the model sees the future"):
        refuse_foresight(Scorer(planted), DOCUMENTS)


def test_the_place_of_a_leak_is_told() -> None:
    """What sees exactly one token ahead is what predicts the token that was changed."""
    with pytest.raises(UserError, match=r"what predicts token (\d+) of a held-out text changes with itself$"):
        refuse_foresight(Scorer(leaking("vanilla", "embedding", next_one)), DOCUMENTS)


def test_noise_of_the_device_is_no_leak_and_hides_none() -> None:
    """As of a device that does not repeat itself."""
    generator = torch.Generator().manual_seed(0)

    def noise(x: Tensor) -> Tensor:
        return torch.rand(x.shape, generator=generator)

    refuse_foresight(Scorer(leaking("lookup_prefix", "embedder", noise, 1e-6)), DOCUMENTS)
    both = leaking("lookup_prefix", "token_decoder.stack", whole, 0.1)
    both.get_submodule("embedder").register_forward_hook(lambda module, given, output: output + 1e-6 * noise(output))
    with pytest.raises(UserError, match="the model sees"):
        refuse_foresight(Scorer(both), DOCUMENTS)


@pytest.mark.parametrize("documents", [[], [[5]], [[5, 6]], [[5, 6, 7], [8]]], ids=["none", "one", "two", "four"])
def test_hardly_any_text_is_no_error(documents: list[list[int]]) -> None:
    for name in ("vanilla", "lookup_prefix"):
        refuse_foresight(Scorer(model(name)), documents)
