"""What surrounds a command: standard streams that may be taken away, and Ctrl-C that must not be lost."""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Stream", "guarded_streams", "ignore_interrupts", "interrupts_arrive"]


class Stream:
    """A text stream that remembers the first error of a write; errors of ``optional`` streams stop nothing.

    Parameters
    ----------
    inner : text stream or None
        Where to write; None where the program was started without it.
    optional : bool
        Whether what cannot be written is dropped: the log, and no answer.
    """

    def __init__(self, inner: TextIO | None, optional: bool) -> None:
        self._inner: TextIO = inner if inner is not None else io.StringIO()
        self._missing = inner is None
        self._optional = optional
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text; the number of its characters."""
        if self._missing:
            self._lost(OSError(9, "it is closed"))
        else:
            try:
                self._inner.write(text)
            except OSError as error:
                self._lost(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._inner.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        self.error = self.error or error
        if not self._optional:
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def guarded_streams() -> Iterator[Stream]:
    """Standard output that remembers its error, and standard error that stops nothing, while a command runs.

    Yields
    ------
    Stream
        Standard output; its ``error`` is None where all of it was written.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    out, err = Stream(sys.stdout, optional=False), Stream(sys.stderr, optional=True)
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    try:
        yield out
    finally:
        for stream in (out, err):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before
        for stream, own in ((out, before[0]), (err, before[1])):
            if stream.error is not None and own is not None:
                _discard(own)


@contextmanager
def interrupts_arrive(again: float = 0.02) -> Iterator[None]:
    """Ctrl-C that comes while a finaliser or a callback of a weak reference runs is raised again after it.

    Python reports an exception of such a callback and goes on, so that a command would run to its end.

    Parameters
    ----------
    again : float
        Seconds until the interrupt is raised again.
    """
    before, timers = sys.unraisablehook, []

    def hook(report: UnraisableHookArgs) -> None:
        if not issubclass(report.exc_type, KeyboardInterrupt):
            before(report)
            return
        timer = threading.Timer(again, _interrupt)
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


def ignore_interrupts() -> None:
    """Nothing is left to interrupt: for the end of the interpreter, which would print what Ctrl-C disturbs in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt() -> None:
    """Ctrl-C once more, as a signal that ends waiting where there are such."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _fill_descriptors() -> None:
    """Open the null device in the place of closed standard streams: a file that took theirs would get their text."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _discard(stream: TextIO) -> None:
    """Send what a broken stream still holds to the null device: the interpreter writes it when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
