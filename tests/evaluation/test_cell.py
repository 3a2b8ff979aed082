"""A cell's evaluation from files to record."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.data import Manifest, TokenCorpus, write_corpus, write_tokens
from pipeline.evaluation import evaluate
from pipeline.models import build
from pipeline.models.checkpoint import save
from pipeline.models.embedders import EMBEDDERS, LookupEmbedder
from pipeline.results.records import CellIdentity, EvaluateResult, read_result, write_result
from pipeline.study import Study, cells, find_cell, load_study, model_config
from tests.changed import changed
from tests.evaluation.test_adapter import instances
from tests.evaluation.test_local_tasks import document

NAMES = ("vanilla-s-0", "block-s-2-base-0", "block-s-4-base-0")
STUDY = """
name: tiny
corpus: {source: files, files: [documents.jsonl], validation_fraction: 0.2, test_fraction: 0.2}
tokenize: {vocabulary: 300}
sizes: {s: {layers: 2, width: 32}}
variants: {base: {}}
grid: {vanilla: {size: [s]}, block: {size: [s], block_length: [2, 4], variant: [base]}}
pretrain: {context_length: 32, tokens: 1000, batch_size: 4, warmup_steps: 0}
evaluate:
  tasks: [cloze, continuation]
  limit: 4
  long_context: [1, 4]
  needle: 0
  samples: 2
benchmark: {settings: {short: {prompt: 8, new_tokens: 8}}}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus, tokens and a checkpoint of random weights for every cell."""
    folder = tmp_path_factory.mktemp("study")
    texts = [document(f"name{number}", sentences=20) for number in range(12)]
    (folder / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "params.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = load_study()
        write_corpus(study.corpus, paths.CORPUS)
        manifest = write_tokens(study.tokenize, paths.CORPUS, paths.TOKENS, 1)
        for cell in cells(study):
            at = paths.checkpoint(cell.name)
            axes = (cell.name, cell.family, cell.size, cell.seed, cell.block_length, cell.variant)
            identity = dataclasses.asdict(CellIdentity(*axes, "made up"))
            save(at, build(model_config(study, cell, manifest.model_vocabulary)), {"cell": identity})
            shutil.copy(paths.TOKENS / "tokenizer.json", at)
    return folder


@pytest.fixture
def study(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(workspace)
    return load_study()


def test_every_cell_has_the_same_targets_and_a_whole_record(study: Study, tmp_path: Path) -> None:
    lengths = TokenCorpus.open(paths.TOKENS, "test").lengths
    results = [evaluate(study, find_cell(study, name)) for name in NAMES]
    for name, result in zip(NAMES, results, strict=True):
        assert result.cell.name == name
        assert result.targets_by_document == (lengths - 1).tolist()
        assert result.target_tokens == lengths.sum() - len(lengths)
        assert result.bytes == Manifest.read(paths.TOKENS).splits["test"].bytes
        assert result.loss == pytest.approx(math.log(320), abs=0.5)
        assert result.unigram_loss < math.log(300)
        assert result.bits_per_byte == pytest.approx(sum(result.nats_by_document) / math.log(2) / result.bytes)
        assert result.word_perplexity == pytest.approx(math.exp(sum(result.nats_by_document) / result.words))
        assert {(score.task, score.metric) for score in result.tasks} == {
            ("cloze", "perplexity"),
            ("cloze", "acc"),
            ("cloze", "gold_bits_per_byte"),
            ("continuation", "acc"),
            ("continuation", "acc_norm"),
            ("continuation", "gold_bits_per_byte"),
            ("continuation", "gold_margin"),
        }
        assert [curve.length for curve in result.loss_by_context] == [32, 128]
        assert len(result.samples) == 2
        assert all(sample.continuation for sample in result.samples)
        write_result(tmp_path / "result.json", result)
        assert read_result(tmp_path / "result.json", EvaluateResult, "evaluate") == result
    assert [len(result.loss_by_block_position) for result in results] == [1, 2, 4]
    assert len({(result.documents_hash, result.tokenizer_hash) for result in results}) == 1


def test_an_embedder_that_sees_the_next_block_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    class Peeking(LookupEmbedder):
        def forward(self, blocks: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
            rows = super().forward(blocks, valid)
            return rows + 0.01 * rows.roll(-1, dims=1)

    monkeypatch.setitem(EMBEDDERS, "lookup", Peeking)
    with pytest.raises(UserError, match=r"^cell block-s-4-base-0: the model sees the future: what predicts token \d+ "):
        evaluate(study, find_cell(study, "block-s-4-base-0"))


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("needle", r"evaluate.needle: a context of 32 tokens needs -\d+ of text"),
        ("copy", r"evaluate.copy: a context of 32 tokens is too short; the shortest copies take 78$"),
        ("recall", r"evaluate.recall: a context of 32 tokens is too short for 2 pairs$"),
    ],
)
def test_a_context_too_short_for_a_probe_is_an_error(study: Study, probe: str, message: str) -> None:
    study = changed(study, {"evaluate.tasks": [], f"evaluate.{probe}": 2, "evaluate.samples": 0})
    with pytest.raises(UserError, match=f"^cell block-s-4-base-0: {message}"):
        evaluate(study, find_cell(study, "block-s-4-base-0"))


def test_a_model_that_is_not_there_or_diverged_is_an_error_that_names_the_cell(study: Study) -> None:
    cell = find_cell(study, "vanilla-s-0")
    folder = paths.checkpoint(cell.name)
    weights = (folder / "model.safetensors").read_bytes()
    try:
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"cell vanilla-s-0: .*no trained model; run `dvc repro`"):
            evaluate(study, cell)
        (folder / "model.safetensors").write_bytes(weights)
        broken = build(model_config(study, cell, 320))
        with torch.no_grad():
            broken.embedding.weight.fill_(math.inf)  # type: ignore[union-attr]
        save(folder, broken, json.loads((folder / "config.json").read_text()))
        with pytest.raises(UserError, match=r"cell vanilla-s-0: .*log-probabilities are not finite"):
            evaluate(study, cell)
    finally:
        (folder / "model.safetensors").write_bytes(weights)


def test_a_model_of_another_vocabulary_is_refused(study: Study) -> None:
    cell = find_cell(study, "vanilla-s-0")
    path = paths.checkpoint(cell.name) / "tokenizer.json"
    kept = path.read_text()
    try:
        path.write_text(kept.replace("<|padding|>", "<|other|>"))
        with pytest.raises(UserError, match=r"tokenizer.json: not the vocabulary of"):
            evaluate(study, cell)
    finally:
        path.write_text(kept)


def test_lm_evals_registry_opens_cells_and_checkpoints(study: Study) -> None:
    from lm_eval.api.registry import get_model

    import pipeline.evaluation.adapter  # noqa: F401 (registers the model)

    kind = get_model("blockscale")
    request = instances("loglikelihood", [("a b", " c")])
    folder = paths.checkpoint("block-s-4-base-0")
    by_cell = kind.create_from_arg_string("cell=block-s-4-base-0", {"device": "cpu", "batch_size": 1})
    by_folder = kind.create_from_arg_obj({"checkpoint": str(folder), "end_of_text": "<|endoftext|>"}, None)
    assert by_cell.loglikelihood(request, True) == by_folder.loglikelihood(request, True)
    with pytest.raises(UserError, match=r"--model_args: .*'pretrained'.* is wrong; it is cell=NAME"):
        kind.create_from_arg_string("pretrained=gpt2")
