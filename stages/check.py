"""Stage check: refuse a malformed study before any other stage starts; note its input files, its search, its causes."""

import sys
from pathlib import Path

from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.base.files import sha256, write_json
from pipeline.data import describe_inputs, model_vocabulary
from pipeline.device import require_accelerator
from pipeline.evaluation.task_names import check_tasks
from pipeline.results.search import RESULTS
from pipeline.study.arguments import stage_parser, study_of
from pipeline.study.causes import write_causes


@command
def main() -> None:
    study = study_of(stage_parser("check", "Refuse a malformed study.").parse_args())
    check_tasks(study.evaluate.tasks)
    try:
        require_accelerator(study.hardware)
    except UserError as error:  # documents and tokens need no GPU; the stages that do will refuse
        print(f"warning: {error}", file=sys.stderr)
    write_json(Path("data/inputs.json"), describe_inputs(study))
    # The report draws a search where there is one; DVC has no dependencies that may be absent.
    write_json(Path("data/search.json"), sha256(RESULTS) if RESULTS.exists() else None)
    write_causes(study, model_vocabulary(study.tokenize))


if __name__ == "__main__":
    main()
