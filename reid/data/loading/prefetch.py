"""Batches made in advance, in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from reid.data.threads import one_thread_each

Item = TypeVar("Item")


def prefetched(produce: Callable[[], Iterator[Item]], ahead: int = 1) -> Iterator[Item]:
    """Run an iterator in a background thread, `ahead` items in advance; its errors arrive here.

    The thread starts with the first item asked for and has ended when this iterator is exhausted or closed.
    """
    items: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(more: bool, item: Item | BaseException | None) -> None:
        while not stop.is_set():
            try:
                items.put((more, item), timeout=0.1)
                return
            except queue.Full:
                continue

    alone = one_thread_each()

    def work() -> None:
        # Two threads on such small operations are slower than one, and they would take the cores from the training
        # step.
        alone()
        try:
            for item in produce():
                if stop.is_set():
                    return
                put(True, item)
            put(False, None)
        except BaseException as error:  # handed to the consumer, who raises it
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
