"""Vanilla models to Hugging Face's files and back, with transformers as the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.base.errors import UserError
from pipeline.interop.huggingface import from_huggingface, to_huggingface
from pipeline.models import build
from pipeline.models.config import StackConfig, VanillaConfig
from tests.models.test_models import lively, random_tokens


def neox(folder: Path, **changed: Any) -> Any:
    """A GPT-NeoX model of transformers, saved in ``folder``; every parameter is random."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.GPTNeoXConfig(vocab_size=37, max_position_embeddings=64, **sizes)
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder, **changed)
    return model


def edit(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_in_with_equal_logits(tmp_path: Path) -> None:
    theirs, tokens = neox(tmp_path), random_tokens(2, 20)
    torch.testing.assert_close(from_huggingface(tmp_path)(tokens), theirs(tokens).logits[:, :-1], rtol=0, atol=1e-5)


def test_in_from_shards(tmp_path: Path) -> None:
    theirs, tokens = neox(tmp_path, max_shard_size="10KB"), random_tokens(2, 20)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.testing.assert_close(from_huggingface(tmp_path)(tokens), theirs(tokens).logits[:, :-1], rtol=0, atol=1e-5)


def test_in_from_an_older_file(tmp_path: Path) -> None:
    """Rotary keys at the top level of the configuration, and buffers among the weights."""
    theirs, tokens = neox(tmp_path), random_tokens(2, 20)
    edit(tmp_path, rope_parameters=None, rotary_pct=0.25, rotary_emb_base=10000)
    weights = load_file(tmp_path / "model.safetensors")
    for layer in range(2):
        attention = f"gpt_neox.layers.{layer}.attention"
        weights[f"{attention}.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        weights[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        weights[f"{attention}.rotary_emb.inv_freq"] = torch.ones(1)
    save_file(weights, tmp_path / "model.safetensors")
    torch.testing.assert_close(from_huggingface(tmp_path)(tokens), theirs(tokens).logits[:, :-1], rtol=0, atol=1e-5)


def test_out_with_equal_logits(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    stack = StackConfig(2, 48, 3, 3, 40, rotary_fraction=0.5, rotary_base=500.0, norm_eps=1e-3)
    ours = build(VanillaConfig(37, 64, stack))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.2)
    to_huggingface(ours, tmp_path)
    theirs, report = transformers.GPTNeoXForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    tokens = random_tokens(2, 20)
    torch.testing.assert_close(theirs(tokens).logits[:, :-1], ours(tokens), rtol=0, atol=1e-5)


def test_out_and_in_again(tmp_path: Path) -> None:
    model = lively("vanilla").to(torch.bfloat16)
    to_huggingface(model, tmp_path)
    again = from_huggingface(tmp_path)
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize("name", ["lookup_prefix", "vanilla_multi_query", "vanilla_window"])
def test_what_gpt_neox_lacks_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"only vanilla models|cannot be exported"):
        to_huggingface(lively(name), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "mpt"}, "model_type 'mpt' is not supported"),
        ({"use_parallel_residual": False}, "use_parallel_residual: False"),
        ({"hidden_act": "gelu_fast"}, "hidden_act: 'gelu_fast'"),
        ({"num_attention_heads": 5}, "config.json: width 32 is not a multiple of heads 5"),
        ({"intermediate_size": 64}, r"shape \[48, 32\], but this model needs \[64, 32\]"),
        ({"num_hidden_layers": 3}, "12 missing tensors"),
        ({"num_hidden_layers": 1}, "12 unknown tensors"),
        ({"vocab_size": None}, "'vocab_size' is missing"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    neox(tmp_path)
    edit(tmp_path, **changed)
    with pytest.raises(UserError, match=message):
        from_huggingface(tmp_path)


def test_damaged_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    neox(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        from_huggingface(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        from_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        from_huggingface(tmp_path)
    with pytest.raises(UserError, match="no such folder, and it could not be fetched"):
        from_huggingface(tmp_path / "absent")
