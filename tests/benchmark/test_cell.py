from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import pytest
import torch

from pipeline.base.errors import UserError
from pipeline.base.files import read_json
from pipeline.benchmark.baselines import transformers_baselines
from pipeline.benchmark.cell import benchmark
from pipeline.benchmark.timing import Repeats
from pipeline.commands import benchmark as cli
from pipeline.data import model_vocabulary
from pipeline.models import build
from pipeline.models.checkpoint import save
from pipeline.models.config import LlamaConfig, StackConfig, VanillaConfig
from pipeline.results.records import BenchmarkResult, read_result, write_result
from pipeline.study import Study, cells, find_cell, load_study, model_config
from pipeline.study.arguments import add_study_arguments
from pipeline.study.schema import Setting
from tests.changed import changed

VANILLA, BLOCK = "vanilla-s-0", "block-s-4-base-0"


@pytest.fixture
def study(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The default study with tiny sizes and settings, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    settings = "  settings:\n    even: {prompt: 8, new_tokens: 8}\n    short: {prompt: 5, new_tokens: 3}\n"
    keys = f"benchmark:\n{settings}  batch_sizes: [4]\n  warmup: 0\n  repeats: 2\n  precision: auto\n"
    text = (root / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^benchmark:.*?(?=^  baselines)", keys, text, flags=re.M | re.S)
    text = re.sub(r"^search:.*?(?=^hardware)", "", text, flags=re.M | re.S)
    Path("params.yaml").write_text(text, encoding="utf-8")
    return load_study(overrides=["sizes.s={layers: 2, width: 32}", "tokenize.vocabulary=300"])


def quiet(_: str) -> None:
    pass


def trained(study: Study, name: str) -> None:
    """A checkpoint such as training writes."""
    cell = find_cell(study, name)
    identity = {
        "name": name,
        "family": cell.family,
        "size": cell.size,
        "seed": cell.seed,
        "block_length": cell.block_length,
        "variant": cell.variant,
        "fingerprint": "f" * 16,
    }
    save(Path("checkpoints") / name, build(model_config(study, cell, 384)), {"cell": identity})


@pytest.mark.parametrize("name", [VANILLA, BLOCK])
def test_a_trained_cells_record_says_what_was_measured(study: Study, name: str) -> None:
    trained(study, name)
    path = Path("results.json")
    write_result(path, benchmark(study, find_cell(study, name), report=quiet))
    record = read_result(path, BenchmarkResult, "benchmark")
    assert record.cell.fingerprint == "f" * 16
    assert record.environment.precision == "fp32"
    assert list(record.settings) == ["even", "short"]
    for setting in record.settings.values():
        assert [measured.batch for measured in setting.measurements] == [1, 4]
        best = max(setting.measurements, key=lambda measured: measured.tokens_per_second)
        assert setting.batch == best.batch
        assert setting.tokens_per_second == pytest.approx(best.batch * setting.new_tokens / best.seconds)
        assert 0 < best.prefill_seconds < best.seconds
        assert setting.roofline_fraction == pytest.approx(
            setting.tokens_per_second / setting.roofline.tokens_per_second
        )
        assert setting.bytes_per_sample > setting.kv_bytes_per_sample > 0
    assert record.settings["even"].latency_per_token > 0


def test_memory_of_a_sample_is_its_keys_and_values_and_logits(study: Study) -> None:
    """On a CPU it is counted, and so exact; the block model's caches are a fraction of the vanilla model's."""
    vanilla, block = (
        benchmark(study, find_cell(study, name), random_weights=True, report=quiet).settings["even"]
        for name in (VANILLA, BLOCK)
    )
    tokens = 16
    caches = 2 * 2 * 32 * 4 * tokens
    assert vanilla.kv_bytes_per_sample == caches
    assert vanilla.bytes_per_sample == caches + 8 * 8 + model_vocabulary(study.tokenize) * 4
    assert block.kv_bytes_per_sample < vanilla.kv_bytes_per_sample / 2


@pytest.mark.slow
def test_an_empty_list_of_batches_is_searched(study: Study) -> None:
    study = changed(study, {"benchmark.batch_sizes": []})
    result = benchmark(study, find_cell(study, VANILLA), random_weights=True, report=quiet)
    batches = [measured.batch for measured in result.settings["even"].measurements]
    assert batches == [2**power for power in range(len(batches))]
    assert len(batches) > 1


def test_the_command_measures_every_cell_before_any_is_trained(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["grid.vanilla.size=[s]", "grid.block.size=[s]", "grid.block.block_length=[4, 8]"]
    options = [part for key in few for part in ("--set", key)]
    cli.run(parsed(*options, "--random-weights", "--output", str(tmp_path / "speed.json")))
    records = read_json(tmp_path / "speed.json")
    assert [record["cell"]["name"] for record in records] == [cell.name for cell in cells(load_study(overrides=few))]
    printed = capsys.readouterr().out
    for record in records:
        assert f"{record['cell']['name']} even: {record['settings']['even']['tokens_per_second']:,.0f}" in printed


def test_the_command_measures_lengths_that_the_study_does_not_have(study: Study, tmp_path: Path) -> None:
    lengths = ["--setting", "40+5", "--setting", "3+9"]
    cli.run(parsed(BLOCK, "--random-weights", *lengths, "--output", str(tmp_path / "speed.json")))
    (record,) = read_json(tmp_path / "speed.json")
    measured = {name: (each["prompt"], each["new_tokens"]) for name, each in record["settings"].items()}
    assert measured == {"40+5": (40, 5), "3+9": (3, 9)}


def test_the_command_repeats_as_often_as_it_is_told(study: Study, tmp_path: Path) -> None:
    assert study.benchmark.repeats != 4
    cli.run(parsed(BLOCK, "--random-weights", "--repeats", "4", "--output", str(tmp_path / "speed.json")))
    (record,) = read_json(tmp_path / "speed.json")
    assert record["repeats"] == 4


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--repeats", "0", "benchmark.repeats: 0"), ("--memory-fraction", "1.5", "benchmark.memory_fraction: 1.5")],
)
def test_options_out_of_range_are_refused_as_the_study_s_keys(study: Study, option: str, value: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        cli.run(parsed(BLOCK, "--random-weights", option, value))


@pytest.mark.parametrize("text", ["128", "0+4", "4+-1", "a+b", "1+2+3"])
def test_lengths_that_are_none_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--setting", text)
    assert f"'{text}' is not PROMPT+NEW in tokens, such as 128+8192" in capsys.readouterr().err


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_study_arguments(parser)
    cli.add_arguments(parser)
    tiny = ["--set", "sizes.s={layers: 2, width: 32}", "--set", "tokenize.vocabulary=300"]
    return parser.parse_args([*tiny, *arguments])


def test_without_a_checkpoint_the_stage_to_run_is_named(study: Study) -> None:
    with pytest.raises(UserError, match=r"vanilla-s-0: no trained model; run .* \(stage pretrain\)"):
        benchmark(study, find_cell(study, VANILLA), report=quiet)


MODELS = {
    "neox": VanillaConfig(300, 64, StackConfig(layers=2, width=64, heads=4, kv_heads=4, feed_forward=128)),
    "llama": VanillaConfig(300, 64, LlamaConfig(layers=2, width=64, heads=4, kv_heads=2, feed_forward=96), tied=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_transformers_generates_the_same_tokens_and_is_timed(kind: str) -> None:
    from pipeline.benchmark.baselines import _converted
    from pipeline.benchmark.timing import random_prompts
    from pipeline.generation import Session

    pytest.importorskip("transformers")
    model, setting = build(MODELS[kind]).eval(), Setting(9, 7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    prompts = random_prompts(model, 3, 9)
    theirs = _converted(model, setting).generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=7, do_sample=False
    )
    assert torch.equal(Session(model, 3, 9, 7).run(prompts), theirs[:, 9:])
    (baseline,) = transformers_baselines(model, setting, 2, Repeats(0, 2))
    assert baseline.tokens_per_second > 0
    assert (baseline.batch, baseline.repeats) == (2, 2)


@pytest.mark.parametrize("size", [{"heads": 4, "kv_heads": 1}, {"window": 8}])
def test_what_transformers_cannot_express_has_no_baseline(study: Study, size: dict[str, int]) -> None:
    study = changed(study, {"benchmark.baselines": True, "sizes.s": dataclasses.replace(study.sizes["s"], **size)})
    result = benchmark(study, find_cell(study, VANILLA), random_weights=True, report=quiet)
    assert [setting.baselines for setting in result.settings.values()] == [[]] * len(result.settings)
