"""Work ahead: a thread makes the next items of an iterator while the caller uses one."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_WAIT_S = 0.1


def ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The items in their order, at most ``depth`` of them made before they are asked for.

    The thread has a copy of the caller's context variables. What it raises is raised here, in its turn; it ends
    before this does, also where the caller stops early.

    Parameters
    ----------
    items : iterable
        Is iterated over in the thread.
    depth : int, default 1
        Items that wait, beside the one that is being made.

    Examples
    --------
    >>> list(ahead(k * k for k in range(4)))
    [0, 1, 4, 9]
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put((kind, value), timeout=_WAIT_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
