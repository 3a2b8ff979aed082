"""Every kind of model against its slow version, and what all of them promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.models import LanguageModel, build
from tests.models import reference
from tests.models.variants import VARIANTS, VOCABULARY


def lively(name: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A model whose every weight matters: biases and norms are random too."""
    model = build(VARIANTS[name])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.to(dtype)


def slow(model: LanguageModel, tokens: Tensor, valid: Tensor) -> Tensor:
    weights = dict(model.named_parameters())
    rows = zip(tokens, valid, strict=True)
    return torch.stack([reference.logits(model.config, weights, *row) for row in rows])


def random_tokens(batch: int, length: int) -> Tensor:
    return torch.randint(2, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(length))


def ragged(batch: int, length: int) -> Tensor:
    """Validity with left padding of several lengths, and a stretch of padding inside."""
    valid = torch.ones(batch, length, dtype=torch.bool)
    for row in range(batch):
        valid[row, : 3 * row] = False
        valid[row, 11 + row : 14] = False
    return valid


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("length", [24, 21])
@torch.no_grad()
def test_equals_the_slow_version(name: str, length: int) -> None:
    model, tokens = lively(name), random_tokens(2, length)
    tokens[0, 5] = 1
    expected = slow(model, tokens, torch.ones_like(tokens, dtype=torch.bool))
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_equals_the_slow_version_with_its_gradients(name: str) -> None:
    model = lively(name, torch.float64)
    tokens, valid = random_tokens(3, 23)[1:], ragged(3, 23)[1:]  # both begin with padding
    weights = dict(model.named_parameters())
    expected = slow(model, tokens, valid)
    actual = model(tokens, valid)
    kept = valid[:, model.stride :]
    torch.testing.assert_close(actual[kept], expected[kept], rtol=1e-5, atol=1e-5)

    aim = torch.randn(expected[kept].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = torch.autograd.grad((expected[kept] * aim).sum(), list(weights.values()), allow_unused=True)
    found = torch.autograd.grad((actual[kept] * aim).sum(), list(weights.values()))
    for parameter, want, have in zip(weights, wanted, found, strict=True):
        want = torch.zeros_like(have) if want is None else want
        if "encoder.embedding" in parameter or "encoder.positions" in parameter:
            want, have = want[2:], have[2:]
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5, msg=lambda text, at=parameter: f"{at}: {text}")


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_a_token_reaches_the_next_prediction_and_none_before_it(name: str) -> None:
    model, tokens, valid = lively(name), random_tokens(1, 24), ragged(1, 24)
    for mask in (None, valid):
        before = model(tokens, mask)
        for position in range(24):
            changed = tokens.clone()
            changed[0, position] = (changed[0, position] + 7) % VOCABULARY
            after = model(changed, mask)
            row = position + 1 - model.stride
            assert torch.equal(before[:, : max(row, 0)], after[:, : max(row, 0)]), position
            if mask is None and 0 <= row < before.shape[1]:
                assert not torch.equal(before[:, row], after[:, row]), position


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith(("vanilla", "cls"))])
@torch.no_grad()
def test_padding_is_never_seen(name: str) -> None:
    """What a padded position holds changes only the prediction made there; the other embedders embed what it holds."""
    model, tokens, valid = lively(name), random_tokens(3, 24), ragged(3, 24)
    other = torch.where(valid, tokens, (tokens + 5) % (VOCABULARY - 2) + 2)
    previous = torch.ones_like(valid)
    previous[:, 1:] = valid[:, :-1]
    kept = (valid & previous)[:, model.stride :]
    torch.testing.assert_close(model(other, valid)[kept], model(tokens, valid)[kept], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_leading_padding_blocks_are_neutral(name: str) -> None:
    """Whole blocks of padding on the left change nothing for the tokens that follow."""
    model, tokens = lively(name), random_tokens(2, 24)
    shift = 2 * model.stride
    padded = torch.cat([torch.full((2, shift), 3), tokens], dim=1)
    valid = torch.cat([torch.zeros(2, shift, dtype=torch.bool), torch.ones(2, 24, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(model(padded, valid)[:, shift:], model(tokens), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_promise_of_no_padded_blocks_changes_nothing_where_kept(name: str) -> None:
    model, tokens = lively(name), random_tokens(2, 24)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    if model.stride > 1:
        valid[1, : model.stride - 1] = False
    torch.testing.assert_close(model(tokens, valid, padded_blocks=False), model(tokens, valid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_shapes_at_the_edges(name: str) -> None:
    model = lively(name)
    for length in range(1, 2 * model.stride + 3):
        predicted = max(length - model.stride, 0)
        assert model(random_tokens(2, length)).shape == (2, predicted, VOCABULARY)
        assert model.logits(model.hidden(random_tokens(2, length))).shape == (2, predicted, VOCABULARY)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_bfloat16_is_close(name: str) -> None:
    model, tokens, valid = lively(name), random_tokens(2, 23), ragged(2, 23)
    exact = model(tokens, valid)
    rounded = model.to(torch.bfloat16)(tokens, valid)
    assert rounded.dtype == torch.bfloat16
    kept = valid[:, model.stride :]
    error = (rounded.float() - exact)[kept].norm() / exact[kept].norm()
    assert error < 0.05


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_branches_equal_whole_sequences(name: str) -> None:
    model = lively(name)
    step = model.stride
    prefixes, continuations = random_tokens(2, 6 * step), random_tokens(3, 3 * step + 1)
    lengths, prefix_index = torch.tensor([6, 1]), torch.tensor([1, 0, 1])
    branched = model.branch(prefixes, lengths, continuations, prefix_index)
    for row, hidden in zip(range(3), branched, strict=True):
        kept = int(lengths[prefix_index[row]]) * step
        whole = torch.cat([prefixes[prefix_index[row], :kept], continuations[row]])[None]
        expected = model.hidden(whole)[0, kept:]
        torch.testing.assert_close(hidden[: len(expected)], expected, rtol=1e-4, atol=1e-4)
