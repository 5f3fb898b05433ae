"""Benchmarks run in this process, with small sizes."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run_benchmark(name: str, *arguments: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of `python benchmarks/NAME.py ARGUMENTS`, all in this process."""
    out, err, code, threads = io.StringIO(), io.StringIO(), 0, torch.get_num_threads()
    path = BENCHMARKS / f"{name}.py"
    with contextlib.ExitStack() as changed:
        changed.enter_context(mock.patch("sys.argv", [str(path), *arguments]))
        changed.enter_context(mock.patch("sys.path", [str(BENCHMARKS), *sys.path]))
        changed.enter_context(mock.patch.dict(os.environ))
        import measuring

        changed.enter_context(mock.patch.object(measuring, "in_process", lambda function, *given: function(*given)))
        changed.enter_context(contextlib.redirect_stdout(out))
        changed.enter_context(contextlib.redirect_stderr(err))
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            torch.set_num_threads(threads)
    return code, out.getvalue(), err.getvalue()
