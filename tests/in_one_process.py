"""Commands of Python and DVC, one after another in this process: imports take seconds, most commands do not.

Reads a JSON list of command lines from stdin; writes one of [status, output] to the file that the argument names.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import runpy
import shlex
import subprocess
import sys
import traceback
from pathlib import Path


def run(line: str) -> tuple[int, str]:
    """The command's exit status, and what it printed."""
    program, *arguments = shlex.split(line)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = {"python": _python, "dvc": _dvc, "git": _git}[program](arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
    gc.freeze()  # what a command imported, the next one's collections need not look through
    return status, output.getvalue()


def _python(arguments: list[str]) -> int:
    option, what, *rest = arguments
    if option == "-c":
        exec(compile(what, "<snippet>", "exec"), {"__name__": "__main__"})
        return 0
    assert option == "-m"
    sys.argv = [what, *rest]
    runpy.run_module(what, run_name="__main__", alter_sys=True)
    return 0


def _dvc(arguments: list[str]) -> int:
    from dvc.cli import main

    return int(main(arguments))


def _git(arguments: list[str]) -> int:
    ended = subprocess.run(["git", *arguments], capture_output=True, text=True)
    print(ended.stdout, ended.stderr)
    return ended.returncode


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(json.dumps([run(line) for line in json.load(sys.stdin)]), encoding="utf-8")
