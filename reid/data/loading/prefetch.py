"""Prefetching of batches in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from reid.data.threads import single_thread_initializer

Item = TypeVar("Item")


def prefetch(produce: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Run an iterator in a background thread, one item in advance.

    The thread starts when the first item is requested and has ended when this iterator is exhausted or closed.

    Args:
        produce: Returns the iterator; called in the thread. Its errors are raised here.

    Yields:
        Items in the order in which `produce` yields them.
    """
    items: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def put(more: bool, item: Item | BaseException | None) -> None:
        while not stop.is_set():
            try:
                items.put((more, item), timeout=0.1)
                return
            except queue.Full:
                continue

    use_one_thread = single_thread_initializer()

    def work() -> None:
        # Two threads are slower than one for such small operations, and they would take cores from the training step.
        use_one_thread()
        try:
            for item in produce():
                if stop.is_set():
                    return
                put(True, item)
            put(False, None)
        except BaseException as error:  # raised again by the consumer
            put(False, error)

    worker = threading.Thread(target=work, name="prefetch", daemon=True)
    worker.start()
    try:
        while True:
            more, item = items.get()
            if more:
                yield item  # type: ignore[misc]
            elif isinstance(item, BaseException):
                raise item
            else:
                return
    finally:
        stop.set()
        worker.join()
