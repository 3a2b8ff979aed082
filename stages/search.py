"""Stage search: look for good block transformers, as one of any number of workers."""

from pipeline.base.command import command
from pipeline.commands.search import search
from pipeline.study import load_study


@command
def main() -> None:
    search(load_study())


if __name__ == "__main__":
    main()
