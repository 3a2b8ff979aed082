"""What the tokens folder holds: counts, ids and hashes, small enough to read."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.base.typed_json import build


@dataclass(frozen=True)
class ShardManifest:
    """A pair ``path``.bin and ``path``.idx, relative to the tokens folder.

    ``sha256`` is of both files, one after another; of files used in place, it is the fingerprint of
    :mod:`pipeline.data.foreign`. ``ends_included``: each document's last token in the file is its end of text.

    ``index``: the file in the tokens folder that takes the place of the .idx, where that cuts a stream of documents
    somewhere; ``unfinished``: the stream's tokens behind its last end of text, which are left out.
    """

    path: str
    documents: int
    tokens: int
    sha256: str
    ends_included: bool = False
    index: str | None = None
    unfinished: int = 0


@dataclass(frozen=True)
class SplitManifest:
    """``tokens`` counts no end of text; ``bytes`` is of the text as UTF-8, ``None`` where the text is unknown."""

    documents: int
    tokens: int
    bytes: int | None
    shards: list[ShardManifest]


@dataclass(frozen=True)
class RoundTrip:
    """Sampled ``documents`` that were decoded from their tokens again.

    ``changed`` came back otherwise: what divides by their bytes, as bits per byte does, counts text that the tokens do
    not hold. Of these, ``lost`` lack characters, which vanished or became the unknown token.
    """

    documents: int
    changed: int
    lost: int


@dataclass(frozen=True)
class Manifest:
    """``vocabulary`` is one more than the largest token id, ``model_vocabulary`` the size of the models' tables."""

    vocabulary: int
    model_vocabulary: int
    end_of_text: int
    padding: int
    tokenizer_hash: str
    round_trip: RoundTrip
    splits: dict[str, SplitManifest]

    @property
    def hash(self) -> str:
        """A hash of every token of every split, and of the tokenizer."""
        return self.hash_of(*self.splits)

    def hash_of(self, *splits: str) -> str:
        """A hash of every token of these splits, and of the tokenizer."""
        digest = hashlib.sha256(f"{self.tokenizer_hash} {self.end_of_text}".encode())
        for split in splits:
            for shard in self.splits[split].shards:
                digest.update(f" {split} {shard.sha256}".encode())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, whole or not at all."""
        write_json(folder / "manifest.json", {"hash": self.hash, **dataclasses.asdict(self)})

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Raises :class:`UserError` naming the stage to run where it is absent or of another form."""
        path = Path(folder) / "manifest.json"
        if not path.exists():
            raise UserError(f"{path}: no such file; run `dvc repro tokenize` first")
        values = read_json(path)
        try:
            recorded = values.pop("hash")
            manifest: Manifest = build(Manifest, values)
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: not a token manifest ({error}); run `dvc repro --force tokenize`") from None
        if manifest.hash != recorded:
            raise UserError(f"{path}: its hash does not match its shards; run `dvc repro --force tokenize`")
        return manifest
