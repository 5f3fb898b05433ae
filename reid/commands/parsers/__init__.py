"""The arguments of each command. Nothing here imports NumPy or PyTorch, so that `--help` takes no time."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from reid.commands.parsers import evaluation, files, searching, training

# Name of a command, which is that of its module in `reid.commands` -> function that makes its parser.
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "train": training.train,
    "evaluate": evaluation.evaluate,
    "diagnose": evaluation.diagnose,
    "report": training.report,
    "sweep": training.sweep,
    "ranks": evaluation.ranks,
    "extract": evaluation.extract,
    "index": searching.index,
    "search": searching.search,
    "serve": searching.serve,
    "calibrate": searching.calibrate,
    "export": files.export,
    "convert": files.convert,
    "dataset": files.dataset,
    "retrieve": evaluation.retrieve,
    "attend": evaluation.attend,
    "pack": files.pack,
    "profile": training.profile,
}
