"""Llama and Qwen3 to Hugging Face's files and back, with transformers as the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.errors import UserError
from pipeline.generation import generate
from pipeline.interop.huggingface import FORMS, from_huggingface, to_huggingface
from pipeline.models import LanguageModel
from pipeline.models.config import VanillaConfig
from tests.interop.test_huggingface import edit
from tests.models.test_models import lively, random_tokens

transformers = pytest.importorskip("transformers")

ROPE = {"rope_type": "default"}
KINDS = {
    "llama": {"num_key_value_heads": 4},
    "llama-grouped-wide": {"num_key_value_heads": 2, "head_dim": 12, "rms_norm_eps": 1e-3},
    "llama-tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 6, "rope_parameters": ROPE | {"rope_theta": 500.0}},
    "qwen3-tied": {"num_key_value_heads": 4, "head_dim": 16, "tie_word_embeddings": True},
}


def theirs(folder: Path, kind: str = "llama", **changed: Any) -> Any:
    """A small model of transformers, saved in ``folder``; every parameter is random."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    name = "Qwen3" if kind.startswith("qwen3") else "Llama"
    config = getattr(transformers, f"{name}Config")(
        vocab_size=37, max_position_embeddings=64, eos_token_id=None, **(sizes | KINDS[kind] | changed)
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model


def in_their_names(ours: LanguageModel) -> dict[str, torch.Tensor]:
    """The gradients under transformers' names."""
    config = ours.config
    assert isinstance(config, VanillaConfig)
    entries = FORMS["llama"].entries(config)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    return {
        name: part
        for entry in entries
        for name, part in zip(entry.theirs, entry.write(gradients[entry.ours]), strict=True)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_in_with_equal_logits_gradients_and_text(kind: str, tmp_path: Path) -> None:
    model = theirs(tmp_path, kind)
    ours, tokens = from_huggingface(tmp_path), random_tokens(3, 20)
    valid = torch.arange(20)[None] >= torch.tensor([[0], [3], [11]])
    logits = ours(tokens)
    expected = model(tokens).logits[:, :-1]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    padded = model(tokens, attention_mask=valid.long()).logits[:, :-1]
    kept = valid[:, :-1]
    torch.testing.assert_close(ours(tokens, valid)[kept], padded[kept], rtol=0, atol=1e-5)
    aim = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * aim).sum().backward()
    (logits * aim).sum().backward()
    found = in_their_names(ours)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4, msg=name)
    written = model.generate(tokens, attention_mask=valid.long(), max_new_tokens=12, do_sample=False, pad_token_id=0)
    prompts = [row[known].tolist() for row, known in zip(tokens, valid, strict=True)]
    assert generate(ours, prompts, 12) == written[:, 20:].tolist()


@pytest.mark.parametrize("kind", ["llama-grouped-wide", "qwen3-tied"])
def test_twenty_steps_of_training_lose_as_much(kind: str, tmp_path: Path) -> None:
    model = theirs(tmp_path, kind)
    ours, losses = from_huggingface(tmp_path), []
    steps = [torch.optim.AdamW(trained.parameters(), lr=1e-2) for trained in (ours, model)]
    for step in range(20):
        tokens = torch.randint(37, (2, 16), generator=torch.Generator().manual_seed(step))
        predicted = ours(tokens), model(tokens).logits[:, :-1]
        losses.append([torch.nn.functional.cross_entropy(p.flatten(0, 1), tokens[:, 1:].flatten()) for p in predicted])
        for loss, optimizer in zip(losses[-1], steps, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[-1] = [loss.detach() for loss in losses[-1]]
    mine, others = torch.tensor(losses).T
    torch.testing.assert_close(mine, others, rtol=1e-4, atol=0)
    assert mine[-1] < mine[0]


@pytest.mark.parametrize("name", ["llama", "llama_tied_qwen"])
def test_out_with_equal_logits_and_in_again(name: str, tmp_path: Path) -> None:
    ours = lively(name)
    to_huggingface(ours, tmp_path)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    tokens = random_tokens(2, 20)
    torch.testing.assert_close(model(tokens).logits[:, :-1], ours(tokens), rtol=0, atol=1e-5)
    again = from_huggingface(tmp_path)
    assert again.config == ours.config
    assert all(torch.equal(again.state_dict()[key], value) for key, value in ours.state_dict().items())


REFUSED = [
    (
        "llama",
        {"rope_parameters": {"rope_type": "llama3"}},
        r"rope_parameters.rope_type: 'llama3' is not supported",
    ),
    ("llama", {"rope_scaling": {"type": "linear"}}, r"rope_scaling: \{'type': 'linear'\} is not supported here; None"),
    ("llama", {"attention_bias": True}, "attention_bias: True is not supported here; False is"),
    ("llama", {"mlp_bias": True}, "mlp_bias: True is not supported here"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported here; 'silu' is"),
    ("llama", {"model_type": "mistral"}, "model_type 'mistral' is not supported; it is one of gpt_neox, llama, qwen3"),
    ("llama", {"head_dim": 7}, "config.json: head_dim 7 must be even"),
    ("qwen3", {"use_sliding_window": True}, "use_sliding_window: True is not supported here"),
    ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "layer_types: 'sliding_attention' is not supported here"),
    ("qwen3", {"head_dim": None}, "the key 'head_dim' is missing"),
]


@pytest.mark.parametrize(("kind", "changed", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    kind: str, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    theirs(tmp_path, kind)
    edit(tmp_path, **changed)
    with pytest.raises(UserError, match=message):
        from_huggingface(tmp_path)
