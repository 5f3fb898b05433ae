"""Train configurations with many settings and seeds, and write one table and one page. Finished runs are skipped."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from reid.config.keys import MOVABLE
from reid.config.loading import complete_config, find_config, load_config
from reid.distributed import restart_command
from reid.errors import InputError, Interrupted
from reid.io.atomic import write_text
from reid.progress import progress_bar
from reid.report.pages import check_available, write_page
from reid.report.sweep import render
from reid.report.tables import percent, render_tables
from reid.sweep.grid import Setting, parse_grids, setting_name
from reid.sweep.runs import SweepRun, check_apart, gain_over_controls, run_all
from reid.sweep.table import Line, lines, markdown, read_rows, table, write_rows
from reid.training.run_folder import RunFolder


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise InputError("--seeds and --jobs must be 1 or more")

    check_available()
    settings = parse_grids(arguments.grid)
    runs = [
        _run(file, setting, seed, arguments.output)
        for file in map(find_config, arguments.config_file)
        for setting in settings
        for seed in range(arguments.seeds)
    ]
    check_apart(runs)
    waiting = [run for run in runs if not run.finished()]
    gains = {run.name: _gain(runs, run.name) for run in runs}
    _rows(runs, gains)  # Reports damaged files before anything is trained.
    for path in filter(None, (arguments.output / "sweep.jsonl", arguments.rows)):
        read_rows(path)
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them already finished -> {arguments.output}", flush=True)
    failed: list[str] = []

    def ended(run: SweepRun, error: str | None) -> None:
        bar.advance()
        if error is None:
            row = run.row()
            gains[run.name] = _gain(runs, run.name)
            print(f"{run.name}, seed {run.seed}: rank-1 {percent(row['rank1'])}, mAP {percent(row['mAP'])}", flush=True)
        else:
            failed.append(f"{run.name}, seed {run.seed}: {error} (see {run.log})")
            print(failed[-1], flush=True)
        _write(_rows(runs, gains), arguments.output, arguments.rows)

    try:
        with progress_bar("sweep", len(waiting), unit="runs") as bar:
            run_all(waiting, jobs=arguments.jobs, ended=ended)
    except KeyboardInterrupt:
        command = restart_command(arguments.program, arguments.arguments)
        raise Interrupted(f"interrupted; finished epochs are saved. To resume: {command}") from None
    results = _write(_rows(runs, gains), arguments.output, arguments.rows)
    rows = [dataclasses.asdict(line) for line in results]
    print(render_tables([table(results)], arguments.format, rows), file=arguments.result)
    print(arguments.output / "sweep.html")
    if failed:
        raise InputError(f"{len(failed)} of {len(runs)} runs failed: " + "; ".join(failed))


def _run(file: Path, setting: Setting, seed: int, output: Path) -> SweepRun:
    """Create a run and check its configuration, also against that of an earlier run in its folder."""
    name = f"{file.stem} {setting_name(setting)}" if setting else file.stem
    folder = output / file.stem / setting_name(setting).replace("/", "_") / f"seed{seed}"
    overrides = [text for pair in setting for text in pair]
    config = load_config(file, [*overrides, "SEED", str(seed), "OUTPUT_DIR", str(folder)])
    if (folder / "config.yaml").exists():
        RunFolder(folder, movable=MOVABLE).check(config.dump(), resume=True, complete=complete_config)
    control = config.RRI.CONTROL and (config.RRI.MAX_ROUNDS > 0 or config.RRI.FINAL_RESTRAINT)
    return SweepRun(name, file, setting, seed, folder, control)


def _gain(runs: list[SweepRun], name: str) -> dict[str, list[float]] | None:
    """The gain of the finished seeds of a setting over their controls."""
    return gain_over_controls([run for run in runs if run.name == name and run.finished()])


def _rows(runs: list[SweepRun], gains: dict[str, dict[str, list[float]] | None]) -> list[dict[str, Any]]:
    return [{**run.row(), "gain": gains[run.name]} for run in runs if run.finished()]


def _write(rows: list[dict[str, Any]], output: Path, rows_file: Path | None) -> list[Line]:
    """Write the results of the finished runs and return one line per setting."""
    write_rows(output / "sweep.jsonl", rows)
    if rows_file:
        write_rows(rows_file, rows)
    settings = lines(rows)
    write_text(output / "sweep.md", markdown(settings))
    write_page(output / "sweep.html", render([dataclasses.asdict(line) for line in settings]))
    return settings
