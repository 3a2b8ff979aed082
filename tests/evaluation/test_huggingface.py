"""The adapter beside lm-eval's own Hugging Face model, on one GPT-NeoX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from pipeline.evaluation.adapter import Adapter
from pipeline.evaluation.harness import load_tasks, run_tasks
from pipeline.evaluation.scoring import Scorer
from pipeline.interop.huggingface import from_huggingface
from pipeline.results.records import GOLD
from tests.evaluation.conftest import VOCABULARY
from tests.evaluation.test_adapter import WORDS, instances
from tests.evaluation.test_harness import folder  # noqa: F401 (a fixture)

CONTEXT = 64


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> tuple[object, Adapter]:
    from lm_eval.models.huggingface import HFLM
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    values = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPTNeoXForCausalLM(values).eval()
    at = tmp_path_factory.mktemp("neox")
    model.save_pretrained(at)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|padding|>")
    theirs = HFLM(pretrained=model, tokenizer=fast, backend="causal", batch_size=4, device="cpu", max_length=CONTEXT)
    return theirs, Adapter(Scorer(from_huggingface(at).eval()), tokenizer, end_of_text=0)


def test_log_likelihoods_equal_those_of_lm_evals_own_model(pair: tuple[object, Adapter]) -> None:
    theirs, ours = pair
    pairs = [(WORDS[:end], WORDS[end : end + 3]) for end in range(1, 80, 7)] + [("", "alone"), ("a b ", "c")]
    for one, other in zip(
        theirs.loglikelihood(instances("loglikelihood", pairs), True),  # type: ignore[attr-defined]
        ours.loglikelihood(instances("loglikelihood", pairs), True),
        strict=True,
    ):
        assert other[0] == pytest.approx(one[0], abs=1e-4)
        assert other[1] == one[1]


def test_rolling_and_generation_equal_those_of_lm_evals_own_model(pair: tuple[object, Adapter]) -> None:
    theirs, ours = pair
    rolling = instances("loglikelihood_rolling", [(WORDS * 2,), (WORDS[:9],)])
    assert ours.loglikelihood_rolling(rolling, True) == pytest.approx(
        theirs.loglikelihood_rolling(rolling, True),  # type: ignore[attr-defined]
        abs=1e-3,
    )
    options = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    prompts = instances("generate_until", [(WORDS[:20], options), (WORDS[:7], dict(options))])
    assert ours.generate_until(prompts, True) == theirs.generate_until(prompts, True)  # type: ignore[attr-defined]


def test_tasks_score_the_same(pair: tuple[object, Adapter], folder: Path) -> None:  # noqa: F811
    from lm_eval.evaluator import evaluate

    theirs, ours = pair
    names = ["piqa", "lambada_openai", "hellaswag", "sciq"]
    loaded = load_tasks(names, task_data=folder)
    for task in loaded["tasks"].values():
        task.set_config("num_fewshot", 0)
    results = evaluate(theirs, loaded, bootstrap_iters=0)["results"]
    for score in (score for score in run_tasks(ours, names, [], task_data=folder) if score.metric not in GOLD):
        assert score.value == pytest.approx(results[score.task][f"{score.metric},none"], rel=1e-4)
