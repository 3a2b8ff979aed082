"""Cells as folders for transformers: its own classes and our code there against the models that they come from."""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.base.files import sha256
from pipeline.commands import export as cli
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.generation import generate
from pipeline.interop import export
from pipeline.interop.export import CODED, export_model
from pipeline.models import LanguageModel, build
from pipeline.models.checkpoint import load, save
from pipeline.models.config import BlockConfig, LookupConfig
from pipeline.models.embedder_config import CONFIGS as EMBEDDERS
from pipeline.models.stack_config import LAYERS
from pipeline.models.token_decoder_config import CONFIGS as TOKEN_DECODERS
from pipeline.study.arguments import add_study_arguments
from tests.fixture import write_tokenizer
from tests.generation.models import CONFIGS, VOCABULARY, model, prompts
from tests.models.test_models import lively, ragged, random_tokens
from tests.models.variants import VARIANTS

transformers = pytest.importorskip("transformers")


def exported(built: LanguageModel, folder: Path, padded: bool = True) -> Any:
    """The model that transformers' classes, and ours for it, make of the exported folder."""
    from pipeline.interop.remote_code import modeling_blockscale

    made = export_model(built, folder, VOCABULARY, padded)
    found = getattr(modeling_blockscale if made.code else transformers, made.architecture)
    theirs, report = found.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return theirs.eval()


OWN_CLASSES = {"vanilla", "llama", "llama_tied_qwen"}  # test_huggingface.py and test_llama.py have these


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in OWN_CLASSES])
def test_the_code_gives_the_models_logits_whatever_is_padding(name: str, tmp_path: Path) -> None:
    ours = lively(name).eval()
    theirs = exported(ours, tmp_path)
    for length in (24, 21, ours.stride):
        tokens, valid = random_tokens(3, length), ragged(3, length)
        for mask in (torch.ones_like(valid), valid):
            expected = ours(tokens, mask)
            actual = F.linear(theirs.hidden(tokens, mask), theirs.head_weight())
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=3e-5)


def left_padded(lists: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, lists))
    rows = [[0] * (longest - len(tokens)) + tokens for tokens in lists]
    mask = [[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in lists]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("name", CONFIGS)
def test_generate_gives_the_same_greedy_tokens(name: str, tmp_path: Path) -> None:
    """Of prompts that need other padding each, in one batch."""
    ours, given = model(name), prompts(1, 5, 8, 10)
    theirs = exported(ours, tmp_path)
    batch = left_padded(given)
    expected = generate(ours, given, 9)
    tokens = theirs.generate(**batch, max_new_tokens=9, do_sample=False, eos_token_id=None)
    assert tokens[:, batch["input_ids"].shape[1] :].tolist() == expected
    alone = theirs.generate(torch.tensor(given[1:2]), max_new_tokens=9, do_sample=False, eos_token_id=None)
    assert alone[0, len(given[1]) :].tolist() == expected[1]


@pytest.mark.parametrize("name", ["prefix-4", "overlap-cls", "contexts-local", "vanilla-window"])
@pytest.mark.parametrize("padded", [True, False])
def test_a_documents_logits_are_those_that_it_is_scored_with(name: str, padded: bool, tmp_path: Path) -> None:
    """Every token but the first is predicted, wherever a row's padding stands."""
    ours, texts = model(name), prompts(3, 12, 17)
    theirs = exported(ours, tmp_path, padded)
    scores = Scorer(ours, padded=padded)([Request(text) for text in texts])
    batch = left_padded(texts)
    with torch.no_grad():
        output = theirs(**batch, labels=batch["input_ids"])
        every = torch.tensor([value for score in scores for value in score.log_probabilities])
        torch.testing.assert_close(output.loss, -every.mean(), rtol=1e-5, atol=1e-5)
        for text, score, logits in zip(texts, scores, output.logits, strict=True):
            chosen = logits[-len(text) : -1].log_softmax(-1).gather(1, torch.tensor(text[1:])[:, None])[:, 0]
            torch.testing.assert_close(chosen, torch.tensor(score.log_probabilities), rtol=1e-5, atol=1e-5)
            alone = torch.tensor([text])
            mean = -torch.tensor(score.log_probabilities).mean()
            torch.testing.assert_close(theirs(alone, labels=alone).loss, mean, rtol=1e-5, atol=1e-5)


def test_the_code_needs_torch_and_transformers_alone() -> None:
    for name in (export.MODELING, export.LAYERS):
        tree = ast.parse((export.CODE / name).read_text(encoding="utf-8"))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        absolute = {node.module for node in found if isinstance(node, ast.ImportFrom) and not node.level}
        absolute |= {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
        used = {str(module).split(".")[0] for module in absolute}
        assert used <= {"__future__", "collections", "math", "typing", "torch", "transformers"}
        assert {node.module for node in found if isinstance(node, ast.ImportFrom) and node.level} <= {
            "layers_blockscale"
        }


def test_every_kind_of_this_project_has_code() -> None:
    assert {
        "embedder.kind": set(EMBEDDERS),
        "token_decoder.kind": set(TOKEN_DECODERS),
        "layer.kind": set(LAYERS),
    } == CODED


@dataclass(frozen=True)
class MeanConfig(LookupConfig):
    kind: ClassVar[str] = "mean"


def test_a_kind_without_code_is_refused(tmp_path: Path) -> None:
    config = CONFIGS["prefix-4"]
    assert isinstance(config, BlockConfig)
    ours = build(config)
    ours.config = BlockConfig(61, 64, 4, MeanConfig(8), config.block_decoder, config.token_decoder)
    with pytest.raises(
        UserError, match=r"^embedder.kind mean cannot be exported: remote_code/ has no code for it, only"
    ):
        export_model(ours, tmp_path, 0, padded=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cell(params_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A trained cell's folder, in a study without results."""
    name, folder = "block-s-4-base-0", tmp_path / "checkpoints/block-s-4-base-0"
    save(folder, model("prefix-4"), {"pretrain": {"learning_rate": 0.5, "padding": False}, "fingerprint": "f"})
    write_tokenizer(folder / "tokenizer.json")
    (tmp_path / "params.yaml").write_text(params_text)
    monkeypatch.chdir(tmp_path)
    return name


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    add_study_arguments(parser)
    cli.run(parser.parse_args(words))


def test_the_command_writes_a_folder_that_this_project_reads_too(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(cell, "out/a")
    assert capsys.readouterr().out.startswith(
        "out/a: BlockTransformerForCausalLM; AutoModelForCausalLM.from_pretrained('out/a', trust"
    )
    folder = Path("out/a")
    assert sha256(folder / "model.safetensors") == sha256(Path("checkpoints") / cell / "model.safetensors")
    assert load(folder)[0].config == CONFIGS["prefix-4"]
    assert json.loads((folder / "config.json").read_text())["padding"] is False
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["library_name"], front["license"]) == ("transformers", "unknown")
    assert "| `learning_rate` | `0.5` |" in card
    assert "## Quality\n\nNot evaluated.\n" in card
    assert "## Speed\n\nNot measured.\n" in card
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.padding_side) == (0, 0, "left")
    assert tokenizer.model_max_length == 64


def test_what_cannot_be_written_is_one_line(cell: str) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    Path("link").symlink_to("nowhere")
    for words, message in (
        ((cell, "full"), r"^full: it exists already; name a folder that is new or empty$"),
        ((cell, "link"), r"^link: it exists already"),
        (("vanilla-s-9", "out"), r"^cell 'vanilla-s-9' is not in the study's grid"),
        (("vanilla-s-0", "out"), r"^checkpoints/vanilla-s-0: no trained model"),
    ):
        with pytest.raises(UserError, match=message):
            run(*words)
    assert {path.name for path in Path().iterdir()} == {"checkpoints", "full", "link", "params.yaml"}
    assert [path.name for path in Path("full").iterdir()] == ["file"]


ELSEWHERE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
assert (tokenizer.eos_token_id, tokenizer.padding_side) == (0, "left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokens = model.generate(torch.tensor([json.loads(sys.argv[2])]), max_new_tokens=7, do_sample=False, eos_token_id=None)
assert "pipeline" not in sys.modules
print(json.dumps(tokens[0].tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contexts-local", "vanilla-window", "llama"])
def test_auto_classes_load_it_where_this_package_is_not(name: str, tmp_path: Path) -> None:
    ours, (prompt,) = model(name), prompts(6)
    export_model(ours, tmp_path / "out", 0, padded=True)
    write_tokenizer(tmp_path / "tokenizer.json")
    export.export_tokenizer(tmp_path / "tokenizer.json", tmp_path / "out", "<|endoftext|>", 64)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "out"), json.dumps(prompt)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)[len(prompt) :] == generate(ours, [prompt], 7)[0]
