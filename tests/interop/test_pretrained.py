"""Models trained elsewhere as cells of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pipeline.base.errors import UserError
from pipeline.interop.huggingface import to_huggingface
from pipeline.interop.pretrained import bring_in
from pipeline.models import checkpoint
from pipeline.study.schema import Pretrained
from tests.fixture import read, write_tokenizer
from tests.models.test_models import lively, random_tokens


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def published(folder: Path, **keys: object) -> None:
    fixture = read("prefix")
    folder.mkdir()
    (folder / "block.yaml").write_text(yaml.safe_dump(fixture.config | keys))
    write_tokenizer(folder / "tokenizer.json")
    save_file(fixture.state_dict, folder / "model.safetensors")


def test_a_published_model() -> None:
    published(Path("elsewhere"))
    result = bring_in("block_tiny", Pretrained("elsewhere", "published"))
    model, record = checkpoint.load("checkpoints/block_tiny")
    fixture = read("prefix")
    tokens = fixture["clean/input_ids"].flatten(1)
    torch.testing.assert_close(model(tokens), fixture["clean/logits"].flatten(1, 2), rtol=0, atol=1e-5)
    assert (result.cell.family, result.cell.block_length, result.cell.name) == ("block", 4, "block_tiny")
    assert result.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (result.train_loss, result.validation_loss, result.steps) == (None, None, 0)
    assert record["fingerprint"] == result.cell.fingerprint
    assert Path("checkpoints/block_tiny/tokenizer.json").read_bytes() == Path("elsewhere/tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("keys", "stated", "padding"),
    [
        ({}, None, False),
        ({"random_pad_first_block": True}, None, True),
        ({"random_pad_first_block": True}, False, False),
    ],
)
def test_whether_it_saw_padding(keys: dict[str, object], stated: bool | None, padding: bool) -> None:
    published(Path("elsewhere"), **keys)
    bring_in("m", Pretrained("elsewhere", "published", padding=stated))
    _, record = checkpoint.load("checkpoints/m")
    assert record["pretrain"]["padding"] is padding


def test_a_hugging_face_model_with_the_studys_tokenizer() -> None:
    model = lively("vanilla")
    to_huggingface(model, "pythia")
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        bring_in("pythia_tiny", Pretrained("pythia"))
    Path("data/tokens").mkdir(parents=True)
    write_tokenizer(Path("data/tokens/tokenizer.json"))
    result = bring_in("pythia_tiny", Pretrained("pythia", size="s"))
    again, _ = checkpoint.load("checkpoints/pythia_tiny")
    assert torch.equal(again(random_tokens(2, 9)), model(random_tokens(2, 9)))
    assert (result.cell.family, result.cell.block_length, result.cell.size) == ("vanilla", None, "s")
    copied = Path("checkpoints/pythia_tiny/tokenizer.json")
    assert copied.read_bytes() == Path("data/tokens/tokenizer.json").read_bytes()


def test_a_broken_source_replaces_nothing() -> None:
    published(Path("elsewhere"))
    bring_in("m", Pretrained("elsewhere", "published"))
    before = Path("checkpoints/m/model.safetensors").read_bytes()
    Path("elsewhere/model.safetensors").write_bytes(before[:-10])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        bring_in("m", Pretrained("elsewhere", "published"))
    assert Path("checkpoints/m/model.safetensors").read_bytes() == before
