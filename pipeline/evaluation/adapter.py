"""lm-eval's model interface over the project's models, registered there as ``blockscale``."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.data import Manifest
from pipeline.device import named
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.generation import generate
from pipeline.study.schema import Hardware

if TYPE_CHECKING:
    import tokenizers
    from lm_eval.api.instance import Instance

Encoded = tuple[tuple[str, str], list[int], list[int]]


@register_model("blockscale")
class Adapter(TemplateLM):  # type: ignore[misc]
    """A vanilla or block model behind lm-eval's requests: log-likelihood, rolling log-likelihood, generation.

    Contexts are cut on the left to the model's context length, as lm-eval's Hugging Face model cuts them, and
    :meth:`cut` says how many were; an empty context becomes the end-of-text token.
    """

    def __init__(self, scorer: Scorer, tokenizer: tokenizers.Tokenizer, end_of_text: int) -> None:
        super().__init__()
        self.scorer = scorer
        self.tokenizer = tokenizer
        self.end_of_text = end_of_text
        self.max_length: int = scorer.model.config.context_length
        self.requests: Counter[str] = Counter()
        self.beyond: Counter[str] = Counter()
        self._encoded: dict[str, list[int]] = {}

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Adapter:
        """From ``--model_args cell=NAME`` or ``checkpoint=FOLDER``, with ``end_of_text=TOKEN`` where it is another
        than ``<|endoftext|>``; ``--device`` as torch spells it.
        """
        from pipeline.checkpoints import open_cell, open_checkpoint, require_study_tokenizer

        device = named((additional_config or {}).get("device"), Hardware())
        arguments = {key: str(value) for key, value in arg_dict.items()}
        if arguments.keys() == {"cell"}:
            opened = open_cell(arguments["cell"], device)
            require_study_tokenizer(opened)
            end_of_text = Manifest.read(paths.TOKENS).end_of_text
        elif "checkpoint" in arguments and arguments.keys() <= {"checkpoint", "end_of_text"}:
            opened = open_checkpoint(Path(arguments.pop("checkpoint")), device, **arguments)
            end_of_text = opened.end_of_text
        else:
            raise UserError(
                f"--model_args: {arguments} is wrong; it is cell=NAME or checkpoint=FOLDER,end_of_text=TOKEN"
            )
        return cls(Scorer(opened.model, padded=opened.padded), opened.tokenizer, end_of_text)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Adapter:
        pairs = [pair.partition("=") for pair in arg_string.split(",") if pair]
        return cls.create_from_arg_obj({key.strip(): value for key, _, value in pairs}, additional_config)

    @property
    def eot_token_id(self) -> int:
        return self.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        known = self._encoded.get(string)
        return known if known is not None else list(self.tokenizer.encode(string, add_special_tokens=False).ids)

    def cut(self) -> str | None:
        """What to warn of where requests so far exceed the context length, with counts by task; ``None``: nothing."""
        if not self.beyond:
            return None
        counts = ", ".join(f"{count} of {self.requests[task]} of {task}" for task, count in self.beyond.items())
        return (
            f"the context length is {self.max_length} tokens; prompts were cut on the left where they and what follows "
            f"exceed it: {counts}"
        )

    def _note(self, requests: list[Instance], beyond: list[bool]) -> None:
        """Count requests that exceed the context; lm-eval's log names them, where nobody silenced it."""
        tasks = [request.task_name or "requests" for request in requests]
        self.requests.update(tasks)
        self.beyond.update(task for task, is_beyond in zip(tasks, beyond, strict=True) if is_beyond)
        if any(beyond):
            logging.getLogger("lm_eval").warning(self.cut())

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """lm-eval's own method, after every text that it will encode was encoded, in parallel and once."""
        texts = {text for request in requests for text in _encoded_texts(*request.args)}
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        self._encoded = {text: encoding.ids for text, encoding in zip(texts, encodings, strict=True)}
        # Context and continuation are encoded as one text; end of text stands for an empty context.
        lengths = [len(self._encoded[context + new]) + (not context) for context, new in (r.args for r in requests)]
        # The last token is no input: that many tokens and one are scored with all of their context.
        self._note(requests, [length > self.max_length + 1 for length in lengths])
        results: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        self._encoded = {}
        return results

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], aligned: bool = True, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities, and whether greedy decoding would give the continuation, in input order."""
        windows = [(index, window) for index, request in enumerate(requests) for window in self._windows(*request)]
        sums, greedy = [0.0] * len(requests), [True] * len(requests)
        scored = self.scorer([window for _, window in windows], aligned)
        for (index, _), result in zip(windows, scored, strict=True):
            sums[index] += float(np.sum(result.log_probabilities, dtype=np.float64))
            greedy[index] &= bool(result.greedy.all())
        return list(zip(sums, greedy, strict=True))

    def _windows(self, texts: tuple[str, str], context: list[int], continuation: list[int]) -> Iterator[Request]:
        """A continuation in pieces of the context length, one as a rule, each with all the context that fits."""
        if not continuation:
            raise UserError(f"nothing to score: {texts[1]!r} after {texts[0][-40:]!r} is no token")
        tokens = context + continuation
        # A window is the targets first ... end - 1 and what precedes them: max_length inputs, and the last target.
        for first in range(len(context), len(tokens), self.max_length):
            end = min(first + self.max_length, len(tokens))
            start = max(end - self.max_length - 1, 0)
            yield Request(tokens[start:end], first - start)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts after end of text."""
        texts = [request.args[0] for request in requests]
        encoded = [(("", text), [self.end_of_text], self.tok_encode(text)) for text in texts]
        return [value for value, _ in self._loglikelihood_tokens(encoded, aligned=False)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first stop text, end of text, or the limit. Equal arguments share batches."""
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[repr(request.args[1])].append(index)
        texts = [""] * len(requests)
        for indices in groups.values():
            asked = [requests[index] for index in indices]
            for index, text in zip(indices, self._generate(asked, asked[0].args[1]), strict=True):
                texts[index] = text
        return texts

    def _generate(self, requests: list[Instance], arguments: dict[str, Any]) -> list[str]:
        """Continuations of requests with equal arguments; prompts are cut on the left to leave room for new tokens."""
        options = normalize_gen_kwargs(arguments, default_max_gen_toks=256)
        new_tokens = options["max_gen_toks"]
        room = self.max_length - new_tokens
        if room < 1:
            raise UserError(f"{new_tokens} new tokens leave no room for a prompt in a context of {self.max_length}")
        prompts = [self.tok_encode(request.args[0]) or [self.end_of_text] for request in requests]
        self._note(requests, [len(prompt) > room for prompt in prompts])
        generated = generate(
            self.scorer.model,
            [prompt[-room:] for prompt in prompts],
            new_tokens,
            temperature=float(options.get("temperature", 0.0)),
            top_k=options.get("top_k"),
            top_p=options.get("top_p"),
            end_of_text=self.end_of_text,
        )
        return [_until(self.tokenizer.decode(ids), options.get("until")) for ids in generated]


def _encoded_texts(context: str, continuation: str) -> tuple[str, ...]:
    """What lm-eval encodes for a pair: it moves white space that ends the context to the continuation."""
    return (context.rstrip(), context + continuation) if context else (continuation,)


def _until(text: str, stops: str | list[str] | None) -> str:
    for stop in [stops] if isinstance(stops, str) else stops or []:
        if stop:
            text = text.partition(stop)[0]
    return text
