"""Threads beside the one that computes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

_LOCK = threading.Lock()


def one_thread_each() -> Callable[[], None]:
    """For threads that the caller is about to start: what each of them calls so that PyTorch uses it alone there.

    All other threads stay as they were. `torch.set_num_threads` by itself sets the number of the calling thread and of
    every thread that has not asked PyTorch for it yet, the main one perhaps among them.
    """
    torch.get_num_threads()  # asks, for the caller
    return _use_one


def _use_one() -> None:
    with _LOCK:
        others = torch.get_num_threads()
        torch.set_num_threads(1)
        # What threads to come start with is set from a thread of its own, which leaves this one at 1.
        restore = threading.Thread(target=torch.set_num_threads, args=(others,))
        restore.start()
        restore.join()
