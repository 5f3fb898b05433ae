"""Jobs for several processes on this machine, forked from a server that has imported all they need."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid.distributed import process_group
from reid.errors import stop_signals
from reid.errors.command import run_command

IMPORTS = (
    "pytest",
    "torch.distributed.elastic",
    "reid.svdnet.experiment",
    "reid.config.build",
    "reid.evaluation.extraction",
    "reid.report.training",
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, what it printed, and what its job returned."""

    code: int
    told: str
    value: Any


def together(
    job: Callable[..., Any], folder: Path, *arguments: Any, world: int = 2, joined: bool = True, limit: float = 600
) -> list[Ended]:
    """Run `job(*arguments)` in `world` processes; no process outlives `limit` seconds.

    joined: they work together already; else the job sees to that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTS))
    # As torchrun has it: where they meet belongs to none of them.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = [
        context.Process(target=_work, args=(job, arguments, folder, rank, world, store.port, joined))
        for rank in range(world)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(limit)
    late = [process for process in started if process.is_alive()]
    for process in late:
        process.kill()
    told = [(folder / f"{rank}.txt").read_text(errors="replace") for rank in range(world)]
    assert not late, f"{len(late)} of {world} processes hang: {told}"
    values = [folder / f"{rank}.pt" for rank in range(world)]
    return [
        Ended(int(process.exitcode or 0), text, torch.load(path, weights_only=True) if path.exists() else None)
        for process, text, path in zip(started, told, values, strict=True)
    ]


def _work(
    job: Callable[..., Any], arguments: tuple[Any, ...], folder: Path, rank: int, world: int, port: int, joined: bool
) -> None:
    output = os.open(folder / f"{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    torch.set_num_threads(1)

    def main() -> None:
        with contextlib.ExitStack() as stack:
            if joined:
                stack.enter_context(stop_signals())
                stack.enter_context(process_group(join_timeout=60))
            value = job(*arguments)
        torch.save(value, folder / f"{rank}.pt")

    code = run_command(main)
    sys.stdout.flush()
    raise SystemExit(code)
