"""What each stage writes: one typed record per cell and stage, as JSON. The report and MLflow read these files.

A field that is ``Annotated`` with a :class:`Measure` is a metric: a column of results.csv, a number in MLflow and
something that the report compares, all under one name (:mod:`pipeline.results.metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.base.made_of import added, made_of
from pipeline.base.typed_json import build


@dataclass(frozen=True)
class Measure:
    """Declares a field to be a metric.

    ``lower`` says whether less is better, ``None`` that neither direction is; ``logarithmic``, whether it is drawn and
    interpolated in its logarithm. ``key`` is its name where the field's own is not enough. What is no ``column`` is in
    MLflow alone. ``quality`` is what training gave the weights; a cell that diverged has none. Columns stand in the
    order of the fields.
    """

    label: str
    unit: str = ""
    lower: bool | None = None
    logarithmic: bool = False
    key: str = ""
    column: bool = True
    quality: bool = False

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def magnitude(label: str, unit: str = "", lower: bool | None = True, **others: Any) -> Measure:
    """A :class:`Measure` of what spans magnitudes, and so is compared by ratios."""
    return Measure(label, unit, lower, logarithmic=True, **others)


@dataclass(frozen=True)
class Environment:
    """What a number was measured with."""

    device: str
    threads: int
    precision: str
    torch: str
    python: str
    revision: str
    dirty: bool

    @property
    def hardware(self) -> str:
        """What speeds depend on, in words."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.device}{threads}, {self.precision}"


@dataclass(frozen=True)
class Provenance:
    """What made a number, beside the code's revision: SHA-256 of files, empty where there was none.

    ``params`` is of params.yaml and ``lock`` of requirements.lock. ``weights`` and ``tokenizer`` are the checkpoint's
    files; ``data`` is the hash of the tokens that it was trained on, empty for a model trained elsewhere.
    """

    params: str
    data: str
    tokenizer: str
    weights: str
    lock: str
    versions: dict[str, str]


@dataclass(frozen=True)
class CellIdentity:
    """Who a record is about. ``fingerprint`` ties evaluation and benchmark to the weights they measured.

    ``budget``: the tokens of a cell that ends its training before the others of its model.
    """

    name: str
    family: str
    size: str
    seed: int
    block_length: int | None
    variant: str | None
    fingerprint: str
    budget: int | None = added(None)


@dataclass(frozen=True)
class PretrainResult:
    """Losses in nats per target token; times in seconds; memory in bytes.

    A model trained elsewhere has no losses, no steps and no tokens. ``compiler_failed``: it was trained, or ended,
    uncompiled where it was to be compiled, so that ``tokens_per_second`` is lower than it could be.
    """

    cell: CellIdentity
    environment: Environment
    parameters: dict[str, int]
    total_parameters: Annotated[int, magnitude("Parameters")]
    non_embedding_parameters: Annotated[int, magnitude("Non-embedding parameters")]
    training_flops: Annotated[float, magnitude("Training FLOPs")]
    tokens: Annotated[int, magnitude("Training tokens")]
    train_loss: Annotated[float | None, Measure("Training loss", "nats per token", lower=True, quality=True)]
    validation_loss: Annotated[float | None, Measure("Validation loss", "nats per token", lower=True, quality=True)]
    seconds: Annotated[float, magnitude("Training time", "s", key="training_seconds")]
    tokens_per_second: Annotated[float, magnitude("Training tokens/s", lower=False, key="training_tokens_per_second")]
    steps: Annotated[int, magnitude("Steps", column=False)]
    target_tokens: Annotated[int, magnitude("Training targets", key="training_target_tokens", column=False)]
    peak_memory: Annotated[int, magnitude("Training memory", "bytes", key="training_memory", column=False)]
    diverged: bool = False
    provenance: Provenance | None = None
    compiler_failed: bool = added(False)


@dataclass(frozen=True)
class TaskScore:
    """One metric of one zero-shot task: lm-eval's own, or one of :data:`GOLD`. ``split``: where its documents are from.

    ``chance`` is the accuracy of guessing.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    documents: int
    version: str
    chance: float | None = None
    few_shot: int = 0
    split: str = ""


GOLD_BITS, GOLD_MARGIN = "gold_bits_per_byte", "gold_margin"
GOLD = {
    GOLD_BITS: Measure("bits per byte of the right answer", lower=True, quality=True),
    GOLD_MARGIN: Measure("margin of the right answer", "bits per byte", lower=False, quality=True),
}
"""The metrics of a :class:`TaskScore` that this project adds to lm-eval's, for tasks with right answers: means over
documents, the margin being how many fewer bits per byte the right answer takes than the best wrong one."""


@dataclass(frozen=True)
class PositionLosses:
    """Loss by tokens of context, over ``chunks`` pieces of ``length`` tokens that each hold every position.

    Bucket i is the mean over targets with ``starts[i]`` to ``starts[i + 1] - 1`` tokens of context, the last one over
    those with up to ``length - 1``.
    """

    length: int
    chunks: int
    starts: list[int]
    losses: list[float]


@dataclass(frozen=True)
class NeedleScore:
    """Needle in a haystack: the share of ``examples`` right, the needle ``depth`` percent into ``length`` tokens."""

    prompt: str
    depth: int
    accuracy: float
    examples: int
    length: int


@dataclass(frozen=True)
class CopyScore:
    """A span of ``span`` tokens that stands again ``distance`` tokens later: the loss of both copies, nats per token.

    ``kind`` is ``random`` or ``text``, of the span and of what stands before and between. The first tokens of either
    copy, which tell that it is one, are left out. ``stderr`` is of the second copy's loss, over the ``examples``.
    """

    kind: str
    span: int
    distance: int
    first: float
    second: float
    stderr: float | None
    examples: int


@dataclass(frozen=True)
class RecallScore:
    """Associative recall among ``pairs`` of keys and values: the share of ``queries`` right, 1 / ``pairs`` by guessing.

    ``stderr`` is over the lists of pairs. ``by_block_position``: the share right of those whose answer stands at each
    position of a block behind a fixed number of pads, ``None`` where none does.
    """

    pairs: int
    accuracy: float
    stderr: float | None
    queries: int
    by_block_position: list[float | None] = added([])


@dataclass(frozen=True)
class Sample:
    """A held-out prompt and what the model wrote after it."""

    prompt: str
    continuation: str


@dataclass(frozen=True)
class EvaluateResult:
    """Loss in nats per target token on the held-out documents; every token but a document's first is a target.

    ``skipped_documents`` of the ``documents`` hold no target. ``loss_stderr`` is by resampling documents, ``None``
    where fewer than two hold one. Losses compare between records with equal ``documents_hash``, ``tokenizer_hash``,
    ``documents`` and ``stride``; bits per byte and word perplexity also where only the tokenizers differ.
    ``nats_by_document`` and ``targets_by_document`` are what the loss is made of, for paired resampling. ``along`` are
    the scores on the way, at the counts of ``evaluate.at``; everything else is of the final weights.
    """

    cell: CellIdentity
    environment: Environment
    loss: Annotated[float, Measure("Loss", "nats per token", lower=True, quality=True)]
    loss_stderr: Annotated[float | None, Measure("Standard error", "nats per token", column=False, quality=True)]
    perplexity: Annotated[float, magnitude("Perplexity", quality=True)]
    word_perplexity: Annotated[float, magnitude("Word perplexity", quality=True)]
    bits_per_byte: Annotated[float, Measure("Bits per byte", lower=True, quality=True)]
    unigram_loss: Annotated[float, Measure("Unigram loss", "nats per token", column=False)]
    documents: Annotated[int, magnitude("Test documents", lower=None, column=False)]
    skipped_documents: int
    target_tokens: Annotated[int, magnitude("Test targets", lower=None, column=False)]
    bytes: int
    words: int
    stride: int
    loss_by_block_position: list[float]
    loss_by_context: list[PositionLosses]
    tasks: list[TaskScore]
    needle: list[NeedleScore]
    samples: list[Sample]
    documents_hash: str
    tokenizer_hash: str
    lm_eval: str
    seconds: Annotated[float, magnitude("Evaluation time", "s", key="evaluate_seconds", column=False)]
    nats_by_document: list[float] = field(default_factory=list)
    targets_by_document: list[int] = field(default_factory=list)
    provenance: Provenance | None = None
    copies: list[CopyScore] = added([])
    recall: list[RecallScore] = added([])
    along: list[Waypoint] = added([])


@dataclass(frozen=True)
class Waypoint:
    """What weights scored that had seen ``tokens`` tokens of their training; without samples and losses by document."""

    tokens: int
    scores: EvaluateResult


@dataclass(frozen=True)
class BatchMeasurement:
    """Generation at one batch size. Rates in tokens per second, from the median repeat; spread = (max - min) / median.

    ``prefill_seconds`` runs until the first tokens are chosen: one per sample, or a block of them. The decode rate
    leaves both out.
    """

    batch: int
    seconds: float
    spread: float
    tokens_per_second: Annotated[float, magnitude("tokens/s", lower=False)]
    prefill_seconds: float
    decode_tokens_per_second: float
    peak_memory: int


@dataclass(frozen=True)
class DeviceRates:
    """What the device did in the same run: a large product in FLOP/s, a large copy and a large sum in bytes/s."""

    flops: float
    copy_bandwidth: float
    read_bandwidth: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second, by the faster of copy and sum."""
        return max(self.copy_bandwidth, self.read_bandwidth)


@dataclass(frozen=True)
class Roofline:
    """The most tokens per second that :class:`DeviceRates` allow the fastest batch.

    ``tokens_per_second`` takes products and memory traffic one after the other, ``overlapped_tokens_per_second`` at the
    same time. ``binding`` is the longer: ``compute`` or ``memory``; ``compute_share`` is compute's part of the sum.
    """

    tokens_per_second: Annotated[float, magnitude("roofline tokens/s", lower=False, key="limit")]
    overlapped_tokens_per_second: float
    binding: str
    compute_share: float


@dataclass(frozen=True)
class Baseline:
    """Another implementation on the same weights, device and setting."""

    name: str
    batch: int
    tokens_per_second: Annotated[float, magnitude("tokens/s", lower=False)]
    spread: float
    repeats: int


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """One (prompt, new tokens) setting: the fastest batch's figures, and all that were measured.

    ``time_to_first_token`` and ``latency_per_token`` (seconds) are at batch 1; a block's tokens come together.
    ``bytes_per_sample`` is the slope of peak memory over the batch size, ``kv_bytes_per_sample`` what its keys and
    values take.
    ``roofline_fraction`` is the achieved part of ``roofline.tokens_per_second``.
    """

    tokens_per_second: Annotated[float, magnitude("tokens/s", lower=False)]
    decode_tokens_per_second: Annotated[float, magnitude("decode tokens/s", lower=False)]
    bytes_per_sample: Annotated[float, magnitude("bytes per sample")]
    kv_bytes_per_sample: Annotated[float, magnitude("KV cache bytes per sample")]
    time_to_first_token: Annotated[float, magnitude("time to first token", "s")]
    latency_per_token: Annotated[float, magnitude("latency per token", "s")]
    spread: Annotated[float, Measure("timing spread", lower=True)]
    roofline_fraction: Annotated[float | None, Measure("fraction of the roofline", lower=False)] = None
    batch: Annotated[int, magnitude("batch", lower=None)]
    prompt: Annotated[int, magnitude("prompt tokens", lower=None, column=False)]
    new_tokens: Annotated[int, magnitude("new tokens", lower=None, column=False)]
    measurements: list[BatchMeasurement]
    roofline: Roofline | None = None
    baselines: list[Baseline] = field(default_factory=list)


@dataclass(frozen=True)
class BenchmarkResult:
    """Generation throughput. ``settings`` is keyed by the setting's name in params.yaml.

    ``memory`` says where peak memory is from: ``measured`` (the device's allocator) or ``counted`` (weights, caches,
    output and logits).
    """

    cell: CellIdentity
    environment: Environment
    settings: dict[str, SettingResult]
    repeats: int
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    rates: DeviceRates | None = None
    memory: str = ""
    provenance: Provenance | None = None


AnyResult = PretrainResult | EvaluateResult | BenchmarkResult
Result = TypeVar("Result", bound=AnyResult)

STAGES: dict[str, type[AnyResult]] = {
    "pretrain": PretrainResult,
    "evaluate": EvaluateResult,
    "benchmark": BenchmarkResult,
}
"""The stages that write a record for each cell, and of which kind."""


def identity_of(checkpoint: dict[str, Any], folder: Path) -> CellIdentity:
    """Who a checkpoint's ``config.json`` says it is. Raises :class:`UserError` where it does not."""
    try:
        identity: CellIdentity = build(CellIdentity, checkpoint["cell"])
    except (TypeError, KeyError) as error:
        raise UserError(f"{folder / 'config.json'}: it does not say of which cell it is ({error})") from None
    return identity


def write_result(path: Path, result: AnyResult) -> None:
    """Write a record as JSON, whole or not at all."""
    write_json(path, made_of(result))


def read_result(path: Path, kind: type[Result], stage: str) -> Result:
    """Read a record. Raises :class:`UserError` that names the stage to run where it is absent or of another form."""
    if not path.exists():
        raise UserError(f"{path}: no such result; run `dvc repro` (stage {stage}) first")
    values = read_json(path)
    try:
        result: Result = build(kind, values)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: not a result of stage {stage} ({error}); delete it and run the stage again") from None
    return result
