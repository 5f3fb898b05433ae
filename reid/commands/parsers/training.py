"""Parsers of the commands that train and describe trainings: train, sweep, report, profile."""

from __future__ import annotations

import argparse
from pathlib import Path

from reid.commands.parsers.arguments import add_format, add_overrides


def train() -> argparse.ArgumentParser:
    """Make the parser of `svdnet train`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Train SVDNet: Step 0, then the Restraint-and-Relaxation Iteration, and its control where "
        "requested."
    )
    parser.add_argument("--config-file", required=True, type=Path, help="A YAML file of configs/.")
    parser.add_argument("--resume", action="store_true", help="Resume the run in OUTPUT_DIR.")
    parser.add_argument(
        "--force", action="store_true", help="Resume although configuration, images or log have changed."
    )
    add_overrides(parser, example="SEED 1 OUTPUT_DIR runs/again")
    return parser


def sweep() -> argparse.ArgumentParser:
    """Make the parser of `svdnet sweep`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Train configurations with many settings and seeds, and write one table and one page. Finished "
        "runs are skipped."
    )
    parser.add_argument("--config-file", required=True, type=Path, nargs="+", help="YAML files, e.g. configs/parts/*.")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="'KEY=VALUE,VALUE KEY=VALUE'",
        help="Keys and values to vary, in all combinations; may be repeated.",
    )
    parser.add_argument("--seeds", type=int, default=1, help="Seeds 0 to N - 1 of each setting (default: 1).")
    parser.add_argument("--output", type=Path, default=Path("runs/sweep"), help="Output folder (default: runs/sweep).")
    parser.add_argument("--jobs", type=int, default=1, help="Trainings to run at a time (default: 1).")
    parser.add_argument("--rows", type=Path, help="A .jsonl file to append the rows to as well.")
    add_format(parser)
    return parser


def report() -> argparse.ArgumentParser:
    """Make the parser of `svdnet report`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Rewrite the `report.html` of a run from the files in its folder, or write a page that compares "
        "several runs."
    )
    parser.add_argument("run", type=Path, nargs="+", help="OUTPUT_DIR of a run; several are compared.")
    parser.add_argument(
        "--output", type=Path, help="File to write (default: RUN/report.html, or ./comparison.html for several runs)."
    )
    return parser


def profile() -> argparse.ArgumentParser:
    """Make the parser of `svdnet profile`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description="Print where the time of a training step goes: waiting for data, forward, backward, optimizer."
    )
    parser.add_argument("--config-file", required=True, type=Path, help="A YAML file of configs/.")
    parser.add_argument("--steps", type=int, default=30, help="Steps to time (default: 30).")
    parser.add_argument("--warm-up", type=int, default=5, help="Warm-up steps (default: 5).")
    add_overrides(parser)
    return parser
