"""The threads that load images during the training step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import torch

from reid.threads import available_cores, requested_threads, thread_count

_LOCK = threading.Lock()
_local = threading.local()


def decoding_threads() -> int:
    """Return how many threads should decode: as many as PyTorch has, and on a machine with a GPU all available cores.

    Beside a GPU, PyTorch's threads have little to do, and by default it takes one per physical core only.

    Returns:
        `reid.threads.thread_count` in the calling thread, on a machine with a GPU at least the available cores unless
        the user has requested a number; in a thread that is limited to a single one, that of the thread for which it
        loads images.
    """
    if count := getattr(_local, "count", None):
        return int(count)
    beside_gpu = torch.cuda.is_available() and requested_threads() is None
    return max(thread_count(), available_cores()) if beside_gpu else thread_count()


def single_thread_initializer() -> Callable[[], None]:
    """Return a function with which a thread limits PyTorch to one thread, only for itself.

    The thread count of all other threads stays as it was. Calling only `torch.set_num_threads` changes the count of the
    calling thread and of every thread that has not yet read its own, possibly the main thread.

    Returns:
        The function, to be called once by each thread that the caller starts.
    """
    return partial(_use_one_thread, decoding_threads())  # which fixes the count of the calling thread


def _use_one_thread(of_caller: int) -> None:
    _local.count = of_caller
    with _LOCK:
        others = torch.get_num_threads()
        torch.set_num_threads(1)
        # The count that later threads start with is restored from another thread, which leaves this one at 1.
        restore = threading.Thread(target=torch.set_num_threads, args=(others,))
        restore.start()
        restore.join()
