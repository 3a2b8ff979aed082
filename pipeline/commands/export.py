"""`python -m pipeline export`: a trained cell as a folder for transformers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.base.errors import UserError
from pipeline.base.files import write_text
from pipeline.base.paths import result
from pipeline.data.folders import replacing_folder
from pipeline.results.records import AnyResult, BenchmarkResult, EvaluateResult, PretrainResult, read_result
from pipeline.study import Cell, Study, find_cell
from pipeline.study.arguments import study_of

if TYPE_CHECKING:
    from pipeline.checkpoints import Opened
    from pipeline.interop.card import Described

Record = TypeVar("Record", bound=AnyResult)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("cell", help="a trained cell, as `python -m pipeline plan` lists them")
    parser.add_argument("folder", type=Path, help="the folder to write; it must be new or empty")


def run(arguments: argparse.Namespace) -> None:
    """Write weights, configuration, tokenizer, model card and, where transformers has no such class, the model's code.

    transformers itself is not needed for it.
    """
    study, folder = study_of(arguments), arguments.folder
    cell = find_cell(study, arguments.cell)
    _require_new(folder)
    from pipeline.checkpoints import open_cell
    from pipeline.interop.card import model_card
    from pipeline.interop.export import export_model, export_tokenizer

    opened = open_cell(cell.name, "cpu", "fp32", study.tokenize.end_of_text)
    end_of_text = opened.end_of_text
    with replacing_folder(folder) as partial:
        exported = export_model(opened.model, partial, end_of_text, opened.padded)
        length = opened.model.config.context_length
        export_tokenizer(opened.folder / "tokenizer.json", partial, opened.end_of_text_token, length)
        write_text(partial / "README.md", model_card(_described(study, cell, opened), exported))
    trust = ", trust_remote_code=True" if exported.code else ""
    print(f"{folder}: {exported.architecture}; AutoModelForCausalLM.from_pretrained({str(folder)!r}{trust}) loads it")


def _require_new(folder: Path) -> None:
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.is_symlink() or (folder.exists() and not empty):
        raise UserError(f"{folder}: it exists already; name a folder that is new or empty")


def _described(study: Study, cell: Cell, opened: Opened) -> Described:
    from pipeline.interop.card import Described

    own = str(opened.record.get("fingerprint"))
    return Described(
        study=study.name,
        name=cell.name,
        config=opened.model.config,
        record=opened.record,
        corpus=_corpus(study, cell),
        pretrain=_record(cell, "pretrain", PretrainResult, own),
        evaluate=_record(cell, "evaluate", EvaluateResult, own),
        benchmark=_record(cell, "benchmark", BenchmarkResult, own),
    )


def _record(cell: Cell, stage: str, kind: type[Record], fingerprint: str) -> Record | None:
    """What the stage says of these very weights, if it has run; speed is measured once for all budgets."""
    path = result(stage, cell.whole.name if stage == "benchmark" else cell.name)
    if not path.exists():
        return None
    record: Record = read_result(path, kind, stage)
    shared = stage == "benchmark" and cell.budget is not None
    return record if shared or record.cell.fingerprint == fingerprint else None


def _corpus(study: Study, cell: Cell) -> str:
    if cell.family == "pretrained":
        return "another one than the study's"
    corpus = study.corpus
    named = {
        "sotu": "State of the Union messages",
        "recall": "generated texts of associative recall",
        "files": "files " + ", ".join(f"`{file}`" for file in corpus.files),
        "huggingface": f"`{corpus.dataset.name}` of the Hugging Face hub" if corpus.dataset else "",
    }
    return named.get(corpus.source, corpus.source)
