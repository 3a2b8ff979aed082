"""`python -m pipeline generate`: text from a trained cell."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import UserError
from pipeline.device import named
from pipeline.study import find_cell
from pipeline.study.arguments import study_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pipeline.checkpoints import Opened

UNFINISHED = "\ufffd"
"""What an incomplete UTF-8 sequence decodes to."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("cell", help="a trained cell, as `python -m pipeline plan` lists them")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", action="append", metavar="TEXT", help="may be given several times")
    source.add_argument("--file", type=Path, metavar="FILE", help="a text file with a prompt per line")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default 64")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default 0: greedy")
    parser.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="sample from the fewest tokens that hold this mass")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling; default 0")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="prompts at a time; default 64")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: as hardware.accelerator says")


def run(arguments: argparse.Namespace) -> None:
    """Print each prompt with its continuation, a single one as it comes; tokens/s go to stderr."""
    study = study_of(arguments)
    cell, texts = find_cell(study, arguments.cell), _prompts(arguments)
    from pipeline.checkpoints import open_cell

    device = named(arguments.device, study.hardware)
    opened = open_cell(cell.name, device, study.evaluate.precision, study.tokenize.end_of_text)
    tokenizer = opened.tokenizer
    prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    single = Printer(tokenizer, prompts[0]) if len(prompts) == 1 else None
    started = time.perf_counter()
    continuations = _generate(arguments, opened, prompts, single)
    seconds = time.perf_counter() - started
    if single is not None:
        single.end()
    else:
        for prompt, tokens in zip(prompts, continuations, strict=True):
            print(tokenizer.decode(prompt + tokens))
    count = sum(map(len, continuations))
    print(f"{count} tokens in {seconds:.2f} s, {count / seconds:,.0f} tokens/s", file=sys.stderr)


class Printer:
    """Prints a text as its tokens come, whole characters at a time."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self.tokenizer, self.tokens, self.printed = tokenizer, list(prompt), 0
        self._print(whole=False)

    def __call__(self, row: int, tokens: list[int]) -> None:
        self.tokens += tokens
        self._print(whole=False)

    def end(self) -> None:
        """Print what is left, and end the line."""
        self._print(whole=True)
        print()

    def _print(self, *, whole: bool) -> None:
        text = self.tokenizer.decode(self.tokens)
        if not whole:
            text = text.rstrip(UNFINISHED)
        print(text[self.printed :], end="", flush=True)
        self.printed = max(len(text), self.printed)


def _generate(
    arguments: argparse.Namespace,
    opened: Opened,
    prompts: list[list[int]],
    stream: Callable[[int, list[int]], None] | None,
) -> list[list[int]]:
    from pipeline.generation import generate

    return generate(
        opened.model,
        prompts,
        arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        end_of_text=opened.end_of_text,
        stream=stream,
        batch_size=arguments.batch_size,
    )


def _prompts(arguments: argparse.Namespace) -> list[str]:
    """The prompts, each valid Unicode. A file's lines end at a line feed, with or without a carriage return, alone."""
    if arguments.prompt:
        return [_unicode(text) for text in arguments.prompt]
    try:
        lines = arguments.file.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--file {arguments.file}: not a readable text file ({error})") from None
    prompts = [prompt for line in lines if (prompt := line.removesuffix("\r")).strip()]
    if not prompts:
        raise UserError(f"--file {arguments.file}: holds no prompt; give one per line")
    return prompts


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"--prompt {text!a}: it is not valid UTF-8; is the terminal set to UTF-8?") from None
    return text
