"""The provenance of a run: command, commit, versions, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid import __version__
from reid.io.json_yaml import flatten

# What decides the last bits of a sum: code, libraries, processor, and in how many parts a sum is computed.
ARITHMETIC = ("commit", "versions", "machine", "processes")


def provenance(device: str | None = None, *, command: Sequence[str] = ()) -> dict[str, Any]:
    """Describe where a run comes from.

    Args:
        device: The device that trains, None where it is of no interest.
        command: Words of the command line; empty for those of the process.

    Returns:
        "command", "commit", "versions" and "machine", as plain values for the log.
    """
    import torchvision  # takes a second

    return {
        "command": " ".join(command or sys.argv),
        "commit": _commit(),
        "versions": {
            "reid": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(_cuda(device)) if torch.cuda.is_available() else None,
            **({"device": device} if device else {}),
        },
    }


def logged_arithmetic(log: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Collect from the log of a run what may change the last bits of a result.

    Args:
        log: The lines of the log.

    Returns:
        The last values of what `arithmetic_changes` compares.
    """
    known: dict[str, Any] = {}
    for entry in log:
        if entry.get("kind") in ("start", "changed"):
            known |= {name: entry[name] for name in ARITHMETIC if name in entry}
        elif entry.get("kind") == "threads" and isinstance(known.get("machine"), Mapping):
            known["machine"] = {**known["machine"], "threads": entry.get("threads")}
    return known


def arithmetic_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Compare what may change the last bits of a result between two starts of a run.

    Args:
        was: An earlier provenance as read from a log; what it lacks, as those of older versions do, is not compared.
        now: The present one.

    Returns:
        One entry per difference, such as "machine.threads was 4, is 2".
    """
    old, new = (dict(flatten({name: side[name] for name in ARITHMETIC if name in side})) for side in (was, now))
    return tuple(f"{key} was {old[key]}, is {new[key]}" for key in new if key in old and old[key] != new[key])


def _cuda(device: str | None) -> str | None:
    return device if device and device.startswith("cuda") else None


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()


def processor() -> str:
    """Name the processor.

    Returns:
        Its model, such as "AMD EPYC"; less where the system does not tell.
    """
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
