"""Stage search: look for good block transformers, as one of any number of workers."""

from pipeline.base.command import command
from pipeline.commands.search import search
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    search(study_of(stage_parser("search", "Be a worker of the search.").parse_args()))


if __name__ == "__main__":
    main()
