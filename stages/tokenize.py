"""Stage tokenize: turn the documents into token shards."""

from pipeline.base.command import command
from pipeline.base.paths import CORPUS, TOKENS
from pipeline.data import Manifest, RoundTrip, write_tokens
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    study = study_of(stage_parser("tokenize", "Write token shards.").parse_args())
    manifest = write_tokens(study.tokenize, CORPUS, TOKENS)
    counts = ", ".join(f"{split} {part.tokens:,}" for split, part in manifest.splits.items())
    notes = _streams(manifest) + _changed(manifest.round_trip)
    print(f"{TOKENS}: vocabulary {manifest.vocabulary:,}; tokens: {counts}{notes}")


def _streams(manifest: Manifest) -> str:
    notes = [
        f"; {split} of a stream, whose documents were found by their end-of-text tokens "
        f"({sum(shard.unfinished for shard in part.shards):,} tokens behind the last one left out)"
        for split, part in manifest.splits.items()
        if any(shard.index for shard in part.shards)
    ]
    return "".join(notes)


def _changed(found: RoundTrip) -> str:
    if not found.changed:
        return ""
    lost = f", {found.lost:,} of them without some characters" if found.lost else ""
    return (
        f"; {found.changed:,} of {found.documents:,} sampled documents come back from their tokens changed{lost}: "
        f"bits per byte counts text that the tokens do not hold"
    )


if __name__ == "__main__":
    main()
