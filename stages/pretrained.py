"""Stage pretrained: bring a model trained elsewhere into the study."""

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    parser = stage_parser("pretrained", "Bring a model that params.yaml names under `pretrained` into the study.")
    parser.add_argument("cell", help="its name there")
    arguments = parser.parse_args()
    study, name = study_of(arguments), arguments.cell
    if name not in study.pretrained:
        raise UserError(f"pretrained: {name!r} is not defined; it is one of {', '.join(study.pretrained) or '(none)'}")
    from pipeline.interop.pretrained import bring_in

    with failure_noted("pretrain", name):
        write_result(paths.result("pretrain", name), bring_in(name, study.pretrained[name]))
    tracking.catch_up(study.name, name)


if __name__ == "__main__":
    main()
