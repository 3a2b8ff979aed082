"""Stage check: refuse a study that is not well-formed before any other stage starts."""

from pathlib import Path

from pipeline.command import command
from pipeline.files import write_text
from pipeline.study import load_study


@command
def main() -> None:
    load_study()
    write_text(Path("data/study.ok"), "params.yaml is well-formed\n")


if __name__ == "__main__":
    main()
