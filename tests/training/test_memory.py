"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Page faults of ten steps that each write 64 MiB.
STEPS = """
import resource, sys
import numpy as np
from reid.training.memory import keep_freed_memory

kept = keep_freed_memory() if "keep" in sys.argv else False
faults = []
for _ in range(10):
    np.ones(2**26, np.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, faults[-1] - faults[1])
"""


def run(*arguments: str, **variables: str) -> tuple[str, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    # NumPy asks for large pages by itself, so that few faults are left to count.
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0", **variables}
    command = [sys.executable, "-c", STEPS, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    kept, faults = ended.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_later_steps_cause_no_page_faults() -> None:
    kept, faults = run("keep")
    assert kept == "True" and faults < 100
    assert run()[1] > 10_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_options_of_the_user_stay() -> None:
    assert run("keep", MALLOC_ARENA_MAX="2")[0] == "False"
    assert run("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")[0] == "False"
