"""Stage tokenize: turn the documents into token shards."""

from pipeline.base.command import command
from pipeline.base.paths import CORPUS, TOKENS
from pipeline.data import write_tokens
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    study = study_of(stage_parser("tokenize", "Write token shards.").parse_args())
    manifest = write_tokens(study.tokenize, CORPUS, TOKENS)
    counts = ", ".join(f"{split} {part.tokens:,}" for split, part in manifest.splits.items())
    print(f"{TOKENS}: vocabulary {manifest.vocabulary:,}; tokens: {counts}")


if __name__ == "__main__":
    main()
