"""Stage tune: tune the recipes of the study's models, as one of any number of workers."""

from pipeline.base.command import command
from pipeline.commands.tune import tune
from pipeline.study.arguments import stage_parser, study_of
from pipeline.study.load import load_for_tuning


@command
def main() -> None:
    tune(study_of(stage_parser("tune", "Be a worker of the tuning.").parse_args(), load_for_tuning))


if __name__ == "__main__":
    main()
