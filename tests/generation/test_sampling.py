import pytest
import torch

from pipeline.generation.sampling import Sampling, draw, uniform

LOGITS = torch.tensor([[2.0, 0.5, -1.0, 1.0, float("-inf")]])


def drawn(sampling: Sampling, count: int = 20000) -> torch.Tensor:
    """Shares of the tokens among draws at evenly spaced numbers."""
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens = draw(LOGITS.expand(count, -1), numbers, sampling)
    return torch.bincount(tokens, minlength=5).double() / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_shares_are_the_softmax(temperature: float) -> None:
    expected = (LOGITS[0] / temperature).softmax(-1).double()
    torch.testing.assert_close(drawn(Sampling(temperature)), expected, atol=2e-4, rtol=0)


def test_top_k_keeps_the_likeliest() -> None:
    expected = LOGITS[0, [0, 3]].softmax(-1).double()
    shares = drawn(Sampling(1.0, top_k=2))
    torch.testing.assert_close(shares[[0, 3]], expected, atol=2e-4, rtol=0)
    assert shares[[1, 2, 4]].sum() == 0


def test_top_p_keeps_the_fewest_that_reach_the_mass() -> None:
    probabilities = LOGITS[0].softmax(-1)
    just_two = float(probabilities[0] + probabilities[3]) - 1e-3
    shares = drawn(Sampling(1.0, top_p=just_two))
    assert shares[[1, 2, 4]].sum() == 0
    assert (shares[[0, 3]] > 0).all()
    assert (drawn(Sampling(1.0, top_p=just_two + 2e-3)) > 0).sum() == 3


def test_top_p_applies_to_what_top_k_left() -> None:
    kept = LOGITS[0, [0, 3]].softmax(-1)
    assert drawn(Sampling(1.0, top_k=2, top_p=float(kept[0]) - 1e-3))[0] == 1


def test_uniform_numbers_are_uniform_and_distinct_by_row_index_and_seed() -> None:
    rows = torch.arange(50_000)
    numbers = uniform(3, rows, torch.tensor(7))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers.float(), bins=100, min=0, max=1)
    assert ((counts - 500) ** 2 / 500).sum() < 180
    for other in (
        uniform(4, rows, torch.tensor(7)),
        uniform(3, rows, torch.tensor(8)),
        uniform(3, rows + 1, torch.tensor(7)),
    ):
        assert abs(float(torch.corrcoef(torch.stack([numbers, other]))[0, 1])) < 0.02
