"""A saved model comes back as it was, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.base.errors import UserError
from pipeline.models import checkpoint
from tests.models.test_models import lively, random_tokens
from tests.models.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model, tokens = lively(name), random_tokens(2, 23)
    checkpoint.save(tmp_path, model, {"cell": "x", "fingerprint": "abc"})
    again, config = checkpoint.load(tmp_path)
    assert again.config == model.config
    assert (config["cell"], config["fingerprint"]) == ("x", "abc")
    assert torch.equal(again(tokens), model(tokens))
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_a_model_is_loaded_without_torchs_compiler(tmp_path: Path, root: Path) -> None:
    """Whose import takes longer than to load a small model, and each stage is a process of its own."""
    checkpoint.save(tmp_path, lively("lookup_prefix"), {})
    code = f"import sys; from pipeline.models.checkpoint import load; load({str(tmp_path)!r}); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = ended.stdout.split()
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded


def test_dtype_is_converted(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, lively("vanilla"), {})
    model, _ = checkpoint.load(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_saving_leaves_the_model_and_no_other_file(tmp_path: Path) -> None:
    model = lively("vanilla")
    checkpoint.save(tmp_path, model, {})
    checkpoint.save(tmp_path, model, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_damage_is_named_in_one_line(tmp_path: Path) -> None:
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            checkpoint.load(tmp_path)
        assert "\n" not in str(error.value)

    refused(r"config\.json: no such file")
    checkpoint.save(tmp_path, lively("vanilla"), {})
    whole, stored = weights.read_bytes(), load_file(weights)
    weights.write_bytes(whole[:-1])
    refused(r"model\.safetensors: not a complete safetensors file")
    save_file({name: value for name, value in stored.items() if "head" not in name}, weights)
    refused(r"1 missing tensors: head\.weight")
    save_file(stored | {"tail.weight": torch.zeros(1)}, weights)
    refused(r"1 unknown tensors: tail\.weight")
    save_file(stored | {"head.weight": torch.zeros(3, 32)}, weights)
    refused(r"head\.weight has shape \[3, 32\], but this model needs \[37, 32\]")
    weights.unlink()
    refused(r"model\.safetensors: no such file")
    content = json.loads(config.read_text())
    for wrong in ({"family": "mamba"}, content["model"] | {"depth": 3}, []):
        config.write_text(json.dumps({"model": wrong}))
        refused(r"config\.json: no model configuration")
