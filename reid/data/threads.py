"""The threads that load images during the training step."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

_LOCK = threading.Lock()


def single_thread_initializer() -> Callable[[], None]:
    """Return a function with which a thread limits PyTorch to one thread, only for itself.

    The thread count of all other threads stays as it was. Calling only `torch.set_num_threads` changes the count of the
    calling thread and of every thread that has not yet read its own, possibly the main thread.

    Returns:
        The function, to be called once by each thread that the caller starts.
    """
    torch.get_num_threads()  # fixes the count of the calling thread
    return _use_one_thread


def _use_one_thread() -> None:
    with _LOCK:
        others = torch.get_num_threads()
        torch.set_num_threads(1)
        # The count that later threads start with is restored from another thread, which leaves this one at 1.
        restore = threading.Thread(target=torch.set_num_threads, args=(others,))
        restore.start()
        restore.join()
