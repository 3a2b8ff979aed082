"""Stage check: refuse a study that is not well-formed before any other stage starts, and note its input files."""

from pathlib import Path

from pipeline.command import command
from pipeline.data import describe_inputs
from pipeline.files import write_json
from pipeline.study import load_study


@command
def main() -> None:
    write_json(Path("data/inputs.json"), describe_inputs(load_study()))


if __name__ == "__main__":
    main()
