"""Stage corpus: read the study's documents and split them into train, validation and test."""

from pipeline.base.command import command
from pipeline.base.paths import CORPUS
from pipeline.data import write_corpus
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    study = study_of(stage_parser("corpus", "Read and split the documents.").parse_args())
    manifest = write_corpus(study.corpus, CORPUS)
    counts = ", ".join(f"{split} {part.documents:,}" for split, part in manifest.splits.items())
    megabytes = sum(part.bytes for part in manifest.splits.values()) / 1e6
    left_out = f"{manifest.empty_documents:,} empty left out"
    if manifest.invalid_documents:
        left_out += f", {manifest.invalid_documents:,} that are no valid Unicode (first {manifest.first_invalid})"
    print(f"{CORPUS}: {megabytes:,.1f} MB of text; documents: {counts}; {left_out}")


if __name__ == "__main__":
    main()
