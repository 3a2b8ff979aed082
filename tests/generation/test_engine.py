import pytest
import torch

from pipeline.base.errors import UserError
from pipeline.generation import Session, generate, request
from tests.generation.models import CONFIGS, VOCABULARY, greedy, model, next_logits, prompts

NEW = 9


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_equals_the_full_forward_pass_for_every_prompt_length_modulo_the_block(name: str) -> None:
    built = model(name)
    batch = prompts(1, 2, 3, 4, 5, 8, 11)
    expected = [greedy(built, prompt, NEW) for prompt in batch]
    assert len({tuple(tokens) for tokens in expected}) > 1
    assert [generate(built, [prompt], NEW)[0] for prompt in batch] == expected
    assert generate(built, batch, NEW) == expected
    assert generate(built, batch, NEW, batch_size=3) == expected


@pytest.mark.parametrize("name", ["vanilla-window", "llama-tied-qwen"])
@pytest.mark.parametrize("lengths", [(150, 150), (200, 131)])
def test_long_prompts_of_models_with_windows(name: str, lengths: tuple[int, int]) -> None:
    """Attention of a window goes in chunks there, with padding and without."""
    built, batch = model(name), prompts(*lengths)
    assert generate(built, batch, 3) == [greedy(built, prompt, 3) for prompt in batch]


@pytest.mark.parametrize("name", ["vanilla", "vanilla-window", "prefix-4", "cross-attention", "contexts-3"])
def test_prefill_in_chunks_changes_nothing(name: str) -> None:
    built = model(name)
    batch = prompts(13, 12, 3, 7, 1)
    whole = Session(built, len(batch), 13, NEW).run(batch)
    for chunk in (1, 8, 30):
        assert torch.equal(Session(built, len(batch), 13, NEW, chunk=chunk).run(batch), whole)


@pytest.mark.parametrize("name", ["vanilla", "prefix-2", "contexts-local", "convolution-overlap"])
def test_a_session_runs_again_with_other_prompts(name: str) -> None:
    built = model(name)
    session = Session(built, 2, 9, NEW)
    for batch in (prompts(9, 9), prompts(2, 7), prompts(1, 1)):
        assert session.run(batch).tolist() == [greedy(built, prompt, NEW) for prompt in batch]


@pytest.mark.parametrize("name", ["vanilla", "prefix-4", "summation"])
@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_exactly_the_new_tokens_asked_for(name: str, count: int) -> None:
    longer = generate(model(name), prompts(5), NEW)[0]
    assert generate(model(name), prompts(5), count)[0] == longer[:count]


@pytest.mark.parametrize("name", ["vanilla", "prefix-4"])
def test_end_of_text_ends_its_own_row(name: str) -> None:
    built = model(name)
    batch = prompts(4, 6, 7)
    free = generate(built, batch, 12)
    end = free[1][5]
    expected = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in free]
    assert generate(built, batch, 12, end_of_text=end) == expected
    assert len(expected[1]) <= 5


@pytest.mark.parametrize("name", ["vanilla", "prefix-4"])
def test_streaming_tells_the_same_tokens_in_order(name: str) -> None:
    built = model(name)
    batch = prompts(4, 6)
    streamed: list[list[int]] = [[], []]
    calls = []

    def stream(row: int, tokens: list[int]) -> None:
        streamed[row] += tokens
        calls.append(row)

    assert generate(built, batch, 10, stream=stream) == streamed
    assert len(calls) == 2 * (10 if name == "vanilla" else 3)


@pytest.mark.parametrize("name", ["vanilla", "prefix-4", "cross-attention"])
def test_draws_depend_on_the_seed_and_not_on_the_batch(name: str) -> None:
    built = model(name)
    batch = prompts(3, 3, 3, 9)
    batch[1] = batch[0]
    drawn = generate(built, batch, 12, temperature=1.0, seed=5)
    assert generate(built, batch, 12, temperature=1.0, seed=5, batch_size=1) == drawn
    assert generate(built, batch, 12, temperature=1.0, seed=6) != drawn
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("name", ["vanilla", "prefix-4"])
def test_sampled_tokens_follow_the_models_distribution(name: str) -> None:
    """Chi-square over the first token of many rows with one prompt, and over the second after the commonest first."""
    built, prompt, rows = model(name), prompts(6)[0], 4000
    drawn = torch.tensor(generate(built, [prompt] * rows, 2, temperature=1.5, batch_size=rows))
    first = next_logits(built, prompt, [])
    assert chi_square(drawn[:, 0], first / 1.5) < limit()
    common = int(drawn[:, 0].mode().values)
    after = drawn[drawn[:, 0] == common][:, 1]
    assert chi_square(after, next_logits(built, prompt, [common]) / 1.5) < limit()


def chi_square(drawn: torch.Tensor, logits: torch.Tensor) -> float:
    """The statistic over tokens, those expected fewer than 5 times taken together."""
    expected = logits.softmax(-1).double() * len(drawn)
    counts = torch.bincount(drawn, minlength=VOCABULARY).double()
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return float(((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum())


def limit() -> float:
    from scipy.stats import chi2

    return float(chi2.ppf(1 - 1e-6, VOCABULARY))


def test_top_k_1_is_greedy_and_a_tiny_top_p_too() -> None:
    built, batch = model("prefix-4"), prompts(3, 7)
    expected = generate(built, batch, NEW)
    assert generate(built, batch, NEW, temperature=2.0, top_k=1) == expected
    assert generate(built, batch, NEW, temperature=2.0, top_p=1e-6) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"prompts": [[1, VOCABULARY]]}, f"token {VOCABULARY}"),
        ({"prompts": [[-1]]}, "token -1"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": 1.0, "top_k": 0}, "top_k 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p 1.5"),
    ],
)
def test_bad_requests_are_named(arguments: dict[str, object], message: str) -> None:
    request = {"prompts": [[1, 2]], "max_new_tokens": 2} | arguments
    with pytest.raises(UserError, match=message):
        generate(model("vanilla"), **request)


def test_where_memory_is_short_fewer_prompts_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    built, batch, sizes = model("prefix-4"), prompts(3, 5, 6, 7, 9), []
    expected = generate(built, batch, NEW)

    class Small(Session):
        def __init__(self, model: object, batch: int, *arguments: object) -> None:
            sizes.append(batch)
            if batch > 2:
                raise torch.OutOfMemoryError
            super().__init__(model, batch, *arguments)

    monkeypatch.setattr(request, "Session", Small)
    assert generate(built, batch, NEW) == expected
    assert max(sizes) == 5


def test_no_prompts_give_no_results() -> None:
    assert generate(model("vanilla"), [], 4) == []


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["vanilla", "prefix-4", "summation", "cross-attention", "cls"])
def test_a_weight_that_is_not_finite_is_said_wherever_it_stands(name: str, value: float) -> None:
    built = model(name)
    for weight_name, weight in built.named_parameters():
        one = weight.data.view(-1)[weight.numel() // 2]
        kept = one.clone()
        one.fill_(value)
        with pytest.raises(UserError, match=rf"1 of \d+ weights .*\({weight_name} is .*: the weights have diverged"):
            generate(built, prompts(5), 2)
        one.copy_(kept)


@pytest.mark.parametrize("name", CONFIGS)
def test_finite_weights_that_overflow_are_said_before_a_token_is_streamed(name: str) -> None:
    built, streamed = model(name), []
    with torch.no_grad():
        for weight in built.parameters():
            weight.mul_(1e30)
    with pytest.raises(UserError, match=r"\d+ of \d+ hidden states are not finite: the weights have diverged"):
        generate(built, prompts(5, 3), 2, stream=lambda row, tokens: streamed.append(row))
    assert streamed == []


@pytest.mark.parametrize(
    ("lengths", "new", "expected"),
    [
        ((60,), 4, None),
        ((5, 60, 1), 4, None),
        ((60,), 5, "1 of 1 prompts exceed it with their 5 new tokens, 0 of them alone (the longest has 60)"),
        ((64,), 1, "1 of 1 prompts exceed it with their 1 new tokens, 0 of them alone (the longest has 64)"),
        ((65,), 1, "1 of 1 prompts exceed it with their 1 new tokens, 1 of them alone (the longest has 65)"),
        ((3, 70, 62, 90), 4, "3 of 4 prompts exceed it with their 4 new tokens, 2 of them alone (the longest has 90)"),
        ((1,), 64, "1 of 1 prompts exceed it with their 64 new tokens, 0 of them alone (the longest has 1)"),
    ],
)
@pytest.mark.parametrize("name", ["vanilla", "prefix-4"])
def test_prompts_beyond_the_context_are_counted_in_one_line(
    name: str, lengths: tuple[int, ...], new: int, expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    results = generate(model(name), prompts(*lengths), new, batch_size=2)
    assert [len(tokens) for tokens in results] == [new] * len(lengths)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (expected is not None)
    for line in lines:
        assert line.startswith("warning: the context length is 64 tokens; ")
        assert expected in line
