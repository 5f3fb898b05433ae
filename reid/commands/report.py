"""Rewrite the `report.html` of a run from the files in its folder, or write a page that compares several runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.config.keys import MOVABLE
from reid.report.comparison import write_comparison
from reid.report.training import write_report


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if len(arguments.run) == 1:
        print(f"report: {write_report(arguments.run[0], arguments.output)}")
    else:
        output = arguments.output or Path("comparison.html")
        print(f"comparison: {write_comparison(arguments.run, output, ignored=MOVABLE)}")
