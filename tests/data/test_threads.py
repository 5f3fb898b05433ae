"""Limiting a thread to one PyTorch thread does not affect other threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from reid.data.loading.prefetch import prefetch
from reid.data.threads import decoding_threads, single_thread_initializer

ASKED_AFTERWARDS = """
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import torch
from reid.data.threads import single_thread_initializer
with ThreadPoolExecutor(2, initializer=single_thread_initializer()) as pool:
    list(pool.map(lambda _: torch.ones(9).sum(), range(8)))
print(torch.get_num_threads())
"""


def numbers(workers: int) -> list[int]:
    with ThreadPoolExecutor(workers, initializer=single_thread_initializer()) as pool:
        return list(pool.map(lambda _: torch.get_num_threads(), range(8 * workers)))


def test_only_the_threads_that_call_it_are_limited() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert set(numbers(4)) == {1}
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as another:
            assert another.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_as_many_threads_decode_as_the_caller_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # with a request, the cores of this machine do not matter
    before = torch.get_num_threads()

    def counts() -> Iterator[tuple[int, int]]:
        with ThreadPoolExecutor(1, initializer=single_thread_initializer()) as pool:
            while True:
                yield decoding_threads(), pool.submit(decoding_threads).result()

    try:
        for count in (3, 2, 4):
            torch.set_num_threads(count)
            assert decoding_threads() == count
            assert next(prefetch(counts)) == (count, count)
    finally:
        torch.set_num_threads(before)


def test_a_main_thread_that_has_not_computed_yet_keeps_its_count() -> None:
    if not torch.backends.openmp.is_available():
        pytest.skip("this PyTorch does not use OpenMP's threads")
    environment = {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", ASKED_AFTERWARDS]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout) == 2
