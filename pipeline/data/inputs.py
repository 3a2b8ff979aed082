"""The user's own files that a study reads: named with size and time, so that DVC sees when one changes."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.base.files import is_file
from pipeline.data.foreign import check_pairs, pair
from pipeline.data.source_files import expand
from pipeline.data.tokenizer import on_the_hub
from pipeline.study import Study
from pipeline.study.schema import Json


def describe_inputs(study: Study) -> list[Json]:
    """Path, bytes and time of change (ns) of every input file. Raises :class:`UserError` for one that is absent."""
    files = set(expand(study.corpus.files)) if study.corpus.source == "files" else set()
    tokenizer = study.tokenize.tokenizer
    if tokenizer is not None and not on_the_hub(tokenizer):
        files.add(_existing("tokenize.tokenizer", Path(tokenizer)))
    for split, given in study.tokenize.indexed.items():
        files |= {_existing(f"tokenize.indexed.{split}", path) for name in given for path in pair(name)}
    check_pairs(study.tokenize.indexed)
    return [_describe(path) for path in sorted(files)]


def _existing(key: str, path: Path) -> Path:
    if not is_file(path):
        raise UserError(f"{key}: {str(path)!r} does not exist; give the path of a file")
    return path


def _describe(path: Path) -> Json:
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "changed": status.st_mtime_ns}
