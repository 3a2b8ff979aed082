"""Data: corpus readers, tokenizer, token shards, packing, deterministic batches. In numpy, without torch."""

from pipeline.data.batches import Batch, Batches
from pipeline.data.corpus import CorpusManifest, read_documents, write_corpus
from pipeline.data.inputs import describe_inputs
from pipeline.data.manifest import Manifest, RoundTrip, SplitManifest
from pipeline.data.packing import PackedStream
from pipeline.data.shards import write_tokens
from pipeline.data.tokenizer import load_tokenizer, model_vocabulary
from pipeline.data.tokens import TokenCorpus

__all__ = [
    "Batch",
    "Batches",
    "CorpusManifest",
    "Manifest",
    "PackedStream",
    "RoundTrip",
    "SplitManifest",
    "TokenCorpus",
    "describe_inputs",
    "load_tokenizer",
    "model_vocabulary",
    "read_documents",
    "write_corpus",
    "write_tokens",
]
