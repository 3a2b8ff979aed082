"""Where a step of generation, or reading the prompts, spends its time: `python -m pipeline.benchmark.profile CELL`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Literal

from torch.profiler import ProfilerActivity, profile

from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.benchmark.cell import environment_of, placement, random_model
from pipeline.benchmark.timing import random_prompts, seconds
from pipeline.device import dtype
from pipeline.generation import Session
from pipeline.generation.session import CAPTURE_STEPS
from pipeline.study import Cell, Study, find_cell
from pipeline.study.arguments import add_study_arguments, study_of


@command
def main() -> None:
    """Profile what the command line names of a cell, with random weights."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.benchmark.profile", description=__doc__)
    parser.add_argument("cell", help="a cell's name, as `python -m pipeline plan` lists them")
    add_study_arguments(parser)
    parser.add_argument("--batch", type=int, default=1, help="prompts at a time; default 1")
    parser.add_argument("--prompt", type=int, default=128, help="tokens before the steps; default 128")
    parser.add_argument("--prefill", action="store_true", help="profile reading the prompts instead of steps")
    parser.add_argument("--steps", type=int, default=4, help="how many are profiled, after as many timed; default 4")
    parser.add_argument("--rows", type=int, default=20, help="operations listed; default 20")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    for name in ("batch", "prompt", "steps", "rows"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)} is wrong; it must be 1 or more")
    study = study_of(arguments)
    cell = find_cell(study, arguments.cell)
    part: Part = "prefill" if arguments.prefill else "step"
    measured = measure(study, cell, arguments.batch, arguments.prompt, arguments.steps, part)
    print(json.dumps(asdict(measured)) if arguments.json else measured.table(arguments.rows))


Part = Literal["step", "prefill"]


@dataclass(frozen=True)
class Operation:
    """A kernel on a GPU, an operation of torch on a CPU: ``calls`` and ``microseconds`` in one step or prefill."""

    name: str
    calls: float
    microseconds: float


@dataclass(frozen=True)
class Profiled:
    """A step of ``batch`` samples after ``prompt`` tokens, L tokens of each, 1 of a vanilla model; or their prefill.

    ``milliseconds`` are the wall time of one that is not profiled; ``operations`` stand in order of their time.
    """

    cell: str
    part: Part
    device: str
    torch: str
    precision: str
    batch: int
    prompt: int
    milliseconds: float
    operations: list[Operation]

    def table(self, rows: int) -> str:
        """The costliest operations, one a line."""
        total = sum(operation.microseconds for operation in self.operations)
        load = f"{self.batch} samples, {self.prompt} tokens before"
        lines = [f"{self.cell}: {self.milliseconds:.2f} ms per {self.part}, {load}"]
        for operation in self.operations[:rows]:
            share = operation.microseconds / total
            lines.append(
                f"{operation.microseconds:11,.1f} us {share:6.1%} {operation.calls:6.1f} calls  {operation.name:.80}"
            )
        return "\n".join(lines)


def measure(study: Study, cell: Cell, batch: int, prompt: int, steps: int, part: Part = "step") -> Profiled:
    """Time ``steps`` steps, or prefills, of the cell's model with random weights, then profile as many."""
    device, precision = placement(study)
    model = random_model(study, cell).to(device, dtype(precision))
    # Of at least so many steps a session captures a graph, as in a benchmark.
    session = Session(model, batch, prompt, model.stride * max(2 * steps + 1, CAPTURE_STEPS + 1))
    prompts = random_prompts(model, batch, prompt)
    session.warm_up(prompts)
    session.prefill(prompts)

    def go_on() -> None:
        for _ in range(steps):
            if part == "step":
                session.step()
            else:
                session.prefill(prompts)

    timed = seconds(session.device, go_on) / steps
    cuda = session.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiled:
        seconds(session.device, go_on)
    time_of = attrgetter("self_device_time_total" if cuda else "self_cpu_time_total")
    found = [
        Operation(event.key, event.count / steps, time_of(event) / steps)
        for event in profiled.key_averages()
        if time_of(event)
    ]
    ran = environment_of(study)
    return Profiled(
        cell=cell.name,
        part=part,
        device=ran.device,
        torch=ran.torch,
        precision=precision,
        batch=batch,
        prompt=prompt,
        milliseconds=1e3 * timed,
        operations=sorted(found, key=lambda operation: -operation.microseconds),
    )


if __name__ == "__main__":
    main()
