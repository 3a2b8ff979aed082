"""Stage check: refuse a malformed study before any other stage starts; note its input files, its search, its causes."""

from pathlib import Path

from pipeline.base.command import command
from pipeline.base.files import sha256, write_json
from pipeline.data import describe_inputs, model_vocabulary
from pipeline.evaluation.task_names import check_tasks
from pipeline.results.search import RESULTS
from pipeline.study import load_study
from pipeline.study.causes import write_causes


@command
def main() -> None:
    study = load_study()
    check_tasks(study.evaluate.tasks)
    write_json(Path("data/inputs.json"), describe_inputs(study))
    # The report draws a search where there is one; DVC has no dependencies that may be absent.
    write_json(Path("data/search.json"), sha256(RESULTS) if RESULTS.exists() else None)
    write_causes(study, model_vocabulary(study.tokenize))


if __name__ == "__main__":
    main()
