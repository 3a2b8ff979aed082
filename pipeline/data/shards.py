"""Stage tokenize: documents into token shards, on all cores, in the corpus's order whatever their number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.files import sha256
from pipeline.data.corpus import SPLITS, CorpusManifest, read_documents, read_lines
from pipeline.data.folders import replacing_folder
from pipeline.data.foreign import check_pairs, foreign_split
from pipeline.data.indexed import IndexedWriter
from pipeline.data.manifest import Manifest, ShardManifest, SplitManifest
from pipeline.data.pool import Piece, Pool, pieces
from pipeline.data.round_trip import Tally, sampled, stride
from pipeline.data.tokenizer import (
    end_of_text_id,
    hub_tokenizer,
    on_the_hub,
    open_tokenizer,
    padded,
    padding_id,
    train_tokenizer,
    training_sample,
    vocabulary_size,
    with_plain_end_of_text,
)
from pipeline.study.schema import Tokenize


def write_tokens(tokenize: Tokenize, corpus: Path, folder: Path, processes: int | None = None) -> Manifest:
    """Tokenize a corpus folder into a tokens folder, whole or not at all; by default on every core.

    Raises :class:`UserError` for a corpus or tokenizer that cannot be used.
    """
    check_pairs(tokenize.indexed)
    with replacing_folder(folder) as partial:
        tokenizer = with_plain_end_of_text(_tokenizer(tokenize, corpus), tokenize.end_of_text)
        tokenizer.save(str(partial / "tokenizer.json"))
        vocabulary = vocabulary_size(tokenizer)
        end_of_text = end_of_text_id(tokenizer, tokenize.end_of_text)
        dtype = np.dtype("<u2" if vocabulary <= 2**16 else "<i4")
        texts = CorpusManifest.read(corpus).splits
        counts = [sampled(texts[split].documents) for split in SPLITS if split not in tokenize.indexed]
        tally = Tally(tokenize.tokenizer, sum(counts))
        with Pool(partial / "tokenizer.json", tokenize.end_of_text, dtype, processes or _cores()) as pool:
            splits = {
                split: foreign_split(tokenize.indexed[split], vocabulary, end_of_text, folder, partial, split)
                if split in tokenize.indexed
                else _write_split(split, corpus, partial, pool, tokenize.shard_tokens, tally)
                for split in SPLITS
            }
        manifest = Manifest(
            vocabulary=vocabulary,
            model_vocabulary=padded(vocabulary if tokenize.tokenizer else max(vocabulary, tokenize.vocabulary)),
            end_of_text=end_of_text,
            padding=padding_id(tokenizer, end_of_text),
            tokenizer_hash=sha256(partial / "tokenizer.json"),
            round_trip=tally.result(),
            splits=splits,
        )
        manifest.write(partial)
    return manifest


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tokenizer(tokenize: Tokenize, corpus: Path) -> Any:
    if tokenize.tokenizer is not None and on_the_hub(tokenize.tokenizer):
        return hub_tokenizer(tokenize.tokenizer, tokenize.vocabulary)
    if tokenize.tokenizer is not None:
        return open_tokenizer(Path(tokenize.tokenizer))
    total = CorpusManifest.read(corpus).splits["train"].bytes
    sample = training_sample(read_documents(corpus, "train"), total)
    return train_tokenizer(sample, tokenize.vocabulary, tokenize.end_of_text)


def _write_split(split: str, corpus: Path, folder: Path, pool: Pool, shard_tokens: int, tally: Tally) -> SplitManifest:
    from tqdm import tqdm

    writer = _ShardWriter(folder, split, pool.dtype, shard_tokens)
    texts = CorpusManifest.read(corpus).splits[split]
    with tqdm(desc=f"tokenize {split}", total=texts.bytes, unit="B", unit_scale=True, disable=None) as bar:
        for piece in pool.map(pieces(read_lines(corpus, split), stride(texts.documents))):
            for origin, outcome in piece.outcomes:
                tally.add(origin, outcome)
            writer.add(piece)
            bar.update(piece.bytes)
    shards = writer.close()
    return SplitManifest(
        sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards), texts.bytes, shards
    )


class _ShardWriter:
    """Begins a new shard where the present one would outgrow ``shard_tokens``."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.shards: list[ShardManifest] = []
        self._open()

    def add(self, piece: Piece) -> None:
        ends = np.cumsum(piece.lengths, dtype=np.int64)
        document = token = 0
        while document < len(ends):
            room = self.shard_tokens - self.writer.tokens
            stop = int(np.searchsorted(ends, token + room, "right"))
            if stop <= document and self.writer.documents:
                self._close()
                self._open()
                continue
            stop = max(stop, document + 1)
            end = int(ends[stop - 1])
            self.writer.add(piece.tokens[token:end], piece.lengths[document:stop])
            document, token = stop, end

    def close(self) -> list[ShardManifest]:
        self._close()
        return self.shards

    def _open(self) -> None:
        self.writer = IndexedWriter(self.folder / f"{self.split}-{len(self.shards):05d}", self.dtype)

    def _close(self) -> None:
        digest = self.writer.close()
        writer = self.writer
        self.shards.append(ShardManifest(writer.prefix.name, writer.documents, writer.tokens, digest))
