from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.base.errors import UserError
from pipeline.commands import generate as cli
from pipeline.commands.main import main
from pipeline.generation import generate
from pipeline.models import build
from pipeline.models.checkpoint import load, save
from pipeline.study import find_cell, load_study, model_config
from pipeline.study.arguments import add_study_arguments

CELL = "block-s-4-base-0"


@pytest.fixture
def checkpoint(root: Path, params_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cell with random weights and a small byte-level tokenizer."""
    study = load_study(root / "tests/params.yaml")
    folder = tmp_path / "checkpoints" / CELL
    save(folder, build(model_config(study, find_cell(study, CELL), 384)), {})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["fellow citizens of the senate", "the state of the union"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (tmp_path / "params.yaml").write_text(params_text)
    monkeypatch.chdir(tmp_path)
    return folder


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    add_study_arguments(parser)
    return parser.parse_args([CELL, "--device", "cpu", *words])


def expected(folder: Path, text: str, count: int) -> str:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = tokenizer.encode(text).ids
    new = generate(load(folder)[0], [prompt], count, end_of_text=0)[0]
    return tokenizer.decode(prompt + new)


def test_one_prompt_streams_the_text_that_generate_gives(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(arguments("--prompt", "the state", "--max-new-tokens", "9"))
    captured = capsys.readouterr()
    assert captured.out == expected(checkpoint, "the state", 9) + "\n"
    assert "9 tokens in " in captured.err
    assert "tokens/s" in captured.err


def test_a_file_of_prompts(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text("the union\n\nfellow citizens of\n")
    cli.run(arguments("--file", "prompts.txt", "--max-new-tokens", "5", "--batch-size", "1"))
    texts = [expected(checkpoint, text, 5) for text in ("the union", "fellow citizens of")]
    assert capsys.readouterr().out == "\n".join(texts) + "\n"


def test_a_character_of_several_tokens_is_printed_once_whole(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    euro = tokenizer.encode("€").ids
    assert len(euro) == 3
    printer = cli.Printer(tokenizer, [])
    shown = []
    for token in euro:
        printer(0, [token])
        shown.append(capsys.readouterr().out)
    assert shown == ["", "", "€"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--file", "absent.txt"], "absent.txt: not a readable text file"),
        (["--file", "blank.txt"], "blank.txt: holds no prompt"),
        (["--prompt", ""], "prompt 0 is empty"),
        (["--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens 0"),
        (["--prompt", "a", "--temperature", "-2"], "temperature -2.0"),
    ],
)
def test_bad_input_is_named(checkpoint: Path, words: list[str], message: str) -> None:
    Path("blank.txt").write_text("\n \n")
    with pytest.raises(UserError, match=message):
        cli.run(arguments(*words))


LINES = {
    "U+2028": ("the\u2028state", 1),
    "U+2029": ("the\u2029state", 1),
    "U+0085": ("the\x85state", 1),
    "form feed": ("the\fstate", 1),
    "vertical tab": ("the\vstate", 1),
    "file separator": ("the\x1cstate", 1),
    "a carriage return alone": ("the\rstate", 1),
    "line feeds": ("the\nstate\n", 2),
    "carriage returns and line feeds": ("the\r\nstate\r\n", 2),
    "no last line end": ("the\nstate", 2),
    "blank lines": ("\n the\n \n\r\nstate\n\n", 2),
    "a byte order mark": ("\ufeffthe", 1),
}


@pytest.mark.parametrize("name", LINES)
def test_a_prompt_ends_at_a_line_feed_alone(name: str, tmp_path: Path) -> None:
    text, count = LINES[name]
    (tmp_path / "prompts.txt").write_bytes(text.encode())
    prompts = cli._prompts(argparse.Namespace(prompt=None, file=tmp_path / "prompts.txt"))
    assert len(prompts) == count
    assert not any(prompt.startswith("\ufeff") or prompt.endswith(("\r", "\n")) for prompt in prompts)


def test_a_prompt_that_is_no_text_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"^--prompt 'a\\udcff': it is not valid UTF-8"):
        cli.run(arguments("--prompt", "a\udcff"))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_text_that_the_terminal_cannot_show_is_replaced(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    command = ["pipeline", "generate", CELL, "--prompt", "Größe 漢", "--max-new-tokens", "2", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    main()
    assert written.getvalue().startswith("Größe 漢".encode(encoding, "replace"))
