"""Stage corpus: read the study's documents and split them into train, validation and test."""

from pipeline.base.command import command
from pipeline.base.paths import CORPUS
from pipeline.data import CorpusManifest, write_corpus
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    study = study_of(stage_parser("corpus", "Read and split the documents.").parse_args())
    manifest = write_corpus(study.corpus, CORPUS)
    counts = ", ".join(f"{split} {part.documents:,}" for split, part in manifest.splits.items())
    megabytes = sum(part.bytes for part in manifest.splits.values()) / 1e6
    notes = [f"{manifest.empty_documents:,} empty left out"]
    if manifest.invalid_documents:
        notes.append(
            f"{manifest.invalid_documents:,} left out that are no valid Unicode (first {manifest.first_invalid})"
        )
    if manifest.duplicate_documents:
        notes.append(_duplicates(manifest))
    print(f"{CORPUS}: {megabytes:,.1f} MB of text; documents: {counts}; {'; '.join(notes)}")


def _duplicates(manifest: CorpusManifest) -> str:
    count = f"{manifest.duplicate_documents:,} exact copies"
    if manifest.deduplicated:
        return f"{count} left out"
    leaks = [f"{part.also_in_train:,} of {name}" for name, part in manifest.splits.items() if part.also_in_train]
    if not leaks:
        return f"{count} kept, none of a training document among those held out"
    return (
        f"{count} kept, by which {' and '.join(leaks)} stand in train too (corpus.deduplicate: true leaves copies out)"
    )


if __name__ == "__main__":
    main()
