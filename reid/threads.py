"""How many threads a process may have, and how long they wait for one another.

A thread of OpenMP spins for milliseconds while it waits for the others. If one of them waits for a core that another
process has, the rest burn theirs, and PyTorch almost stops. So no more threads run than the process may have cores, and
they spin only briefly. The variables of OpenMP and MKL, where a user has set them, take precedence over all of this.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

# In the order in which PyTorch prefers them.
COUNT_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
WAIT_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# A thirtieth of the default of GNU's OpenMP, about 0.1 ms: costs nothing on an idle machine, unlike not to spin at all.
SPIN_COUNT = 10_000

_limited: dict[str, str] = {}  # variables that `prepare_threads` has set


def prepare_threads() -> None:
    """Limit threads to the cores of this process, and how long they spin; call it before PyTorch is imported.

    The libraries read their variables when they are loaded, and count the cores of the affinity mask, not those of a
    container's quota. Variables that are set stay as they are.
    """
    cores = available_cores()
    if requested_threads() is None and cores < _affinity():
        _limited.update({name: str(cores) for name in COUNT_VARIABLES})
        os.environ.update(_limited)
    if not any(os.environ.get(name) for name in WAIT_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def available_cores() -> int:
    """Count the processor cores that this process may use.

    Returns:
        The cores of the affinity mask where the system has one, else all cores of the machine; at most the CPU time
        per time that the control groups of a container or a batch system grant, rounded down, at least 1.
    """
    return max(1, int(min(_affinity(), cpu_quota())))


def requested_threads() -> int | None:
    """Read how many threads the user has requested by a variable of the environment.

    Returns:
        The first number of MKL_NUM_THREADS or else OMP_NUM_THREADS; None if neither holds one.
    """
    for name in COUNT_VARIABLES:
        value = os.environ.get(name, "")
        first = value.partition(",")[0].strip()
        if first.isdecimal() and int(first) > 0 and _limited.get(name) != value:
            return int(first)
    return None


def thread_limit(processes: int) -> int:
    """Return how many threads each of several processes should use for work such as decoding.

    Args:
        processes: Processes that share the machine's cores evenly, at least 2. A request for one thread is not
            followed: torchrun makes it for every process where the user makes none.

    Returns:
        What the user requests, otherwise the process's share of the available cores, at least 1.
    """
    requested = requested_threads()
    return requested if requested is not None and requested > 1 else max(1, available_cores() // processes)


def thread_count() -> int:
    """Return how many threads everything besides PyTorch should use, which is as many as PyTorch uses.

    Returns:
        The count of PyTorch in the calling thread, which THREADS or a training may have chosen; unless the user has
        requested a number, at most the available cores.
    """
    import torch

    count = torch.get_num_threads()
    return count if requested_threads() is not None else min(count, available_cores())


def environment_for(processes: int) -> dict[str, str]:
    """Make the environment of processes that run side by side and share the cores.

    Args:
        processes: Number of processes that run at a time.

    Returns:
        The variables of this process. Where the user has requested no number of threads, several processes get an even
        share each, and a single one is free to choose.
    """
    environment = {name: value for name, value in os.environ.items() if _limited.get(name) != value}
    if processes > 1 and requested_threads() is None:
        environment |= dict.fromkeys(COUNT_VARIABLES, str(thread_limit(processes)))
    return environment


def cpu_quota(root: Path = Path("/")) -> float:
    """Read how much CPU time per time the control groups of this process grant.

    Args:
        root: Folder that holds `proc` and `sys`.

    Returns:
        The smallest quota of its groups and those that contain them, in cores; infinity without one.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return math.inf
    quotas = [math.inf]
    for line in groups:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "none", "")
        if not controllers:  # version 2
            mounts = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
            quotas += [_quota_of(folder) for mount in mounts for folder in _with_parents(root / mount, path)]
        elif "cpu" in controllers.split(","):
            mounts = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
            quotas += [_quota_of(folder) for mount in mounts for folder in _with_parents(root / mount, path)]
    return min(quotas)


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and of those that contain it; in a container the mount is the group itself."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return (mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _quota_of(folder: Path) -> float:
    """The quota of one control group of version 2 or 1, in cores; infinity without one."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        granted = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is not a number
        return math.inf
    return granted if granted > 0 else math.inf


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
