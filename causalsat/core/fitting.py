"""A fit ends whole or leaves nothing that can be taken for one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["unfitted_unless_finished"]


@contextmanager
def unfitted_unless_finished(estimator: Any) -> Iterator[None]:
    """Run a fit; an error or an interrupt in it leaves the estimator without fitted attributes.

    What scikit-learn's ``check_is_fitted`` goes by, attributes whose names end in an underscore, is removed: those of
    an earlier fit too, for the estimator was asked to forget it. Ctrl-C ends the fit even where a package inside of
    it takes the interrupt for a wish to stop early and goes on with what it has.

    Parameters
    ----------
    estimator : object
        Its fitted attributes end in an underscore.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> model = Ridge().fit([[0.0], [1.0]], [0.0, 1.0])
    >>> try:
    ...     with unfitted_unless_finished(model):
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     hasattr(model, "coef_")
    False
    """
    try:
        with _interrupts_last():
            yield
    except BaseException:
        for name in [n for n in vars(estimator) if n.endswith("_") and not n.startswith("__")]:
            delattr(estimator, name)
        raise


@contextmanager
def _interrupts_last() -> Iterator[None]:
    """Raise an interrupt again at the end where code inside caught it: skorch and nutpie do, and go on."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[BaseException] = []

    def remember(number: int, frame: Any) -> None:
        try:
            before(number, frame)
        except BaseException as interrupt:
            caught.append(interrupt)
            raise

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    except BaseException as error:
        if caught and error is not caught[0]:
            raise caught[0] from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise caught[0]
