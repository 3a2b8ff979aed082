"""Data: corpus readers, tokenizer, token shards, packing, deterministic batches. Numpy only; nothing here imports torch."""

from pipeline.data.batches import Batch, Batches
from pipeline.data.corpus import CorpusManifest, read_documents, write_corpus
from pipeline.data.manifest import Manifest, SplitManifest
from pipeline.data.packing import PackedStream
from pipeline.data.tokenizer import load_tokenizer, model_vocabulary
from pipeline.data.tokens import TokenCorpus
from pipeline.data.write_tokens import write_tokens

__all__ = [
    "Batch",
    "Batches",
    "CorpusManifest",
    "Manifest",
    "PackedStream",
    "SplitManifest",
    "TokenCorpus",
    "load_tokenizer",
    "model_vocabulary",
    "read_documents",
    "write_corpus",
    "write_tokens",
]
