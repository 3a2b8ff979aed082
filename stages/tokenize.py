"""Stage tokenize: turn the documents into token shards."""

from pipeline.base.command import command
from pipeline.base.paths import CORPUS, TOKENS
from pipeline.data import write_tokens
from pipeline.study import load_study


@command
def main() -> None:
    manifest = write_tokens(load_study().tokenize, CORPUS, TOKENS)
    counts = ", ".join(f"{split} {part.tokens:,}" for split, part in manifest.splits.items())
    print(f"{TOKENS}: vocabulary {manifest.vocabulary:,}; tokens: {counts}")


if __name__ == "__main__":
    main()
