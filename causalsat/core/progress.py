"""Progress bars of every long step: nested ones leave one line, and where nobody looks there are none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from causalsat.exceptions import ParameterError

__all__ = ["bar", "in_steps", "is_shown", "set_progress", "step", "tell"]

P = ParamSpec("P")
R = TypeVar("R")

VARIABLE = "CAUSALSAT_PROGRESS"
OFF, ON = ("0", "false", "no", "off"), ("1", "true", "yes", "on")
DELAY = 1.0  # seconds: what takes less shows nothing


class _State:
    """What was asked for, the bars that are open, and the steps of the analysis that runs."""

    wanted: bool | None = None
    depth = 0
    steps: Any = None


def set_progress(on: bool | None = True) -> None:
    """Show progress bars or not, in the whole session.

    By default they are shown in a terminal and in a notebook, and not in scripts whose output goes to a file, nor in
    continuous integration (the variable ``CI``). The environment variable ``CAUSALSAT_PROGRESS`` says 0 or 1 for
    programs that are not to be changed. ``progress=False`` of a function is stronger than both.

    Parameters
    ----------
    on : bool or None
        False for none, True for bars everywhere, None for the default.

    Raises
    ------
    ParameterError
        If it is none of the three.

    Examples
    --------
    >>> set_progress(False)
    >>> set_progress(None)
    """
    if on is not None and not isinstance(on, bool):
        raise ParameterError(f"set_progress({on!r})", expected="True, False or None")
    _State.wanted = on


def is_shown() -> bool:
    """Whether bars are shown, by the switch, the environment, or whether somebody looks."""
    if _State.wanted is not None:
        return _State.wanted
    said = os.environ.get(VARIABLE, "").strip().lower()
    if said in OFF or said in ON:
        return said in ON
    if os.environ.get("CI"):
        return False
    return _in_notebook() or bool(getattr(sys.stderr, "isatty", lambda: False)())


def bar(iterable: Any = None, *, total: int | None = None, desc: str, unit: str = "it", show: bool = True) -> Any:
    """A progress bar as tqdm makes them; a bar within another is cleared when it ends.

    Parameters
    ----------
    iterable : iterable, optional
        What to go through; without it, call ``update``, within ``with``.
    total : int, optional
        How many there are.
    desc, unit : str
        What is done, and to what.
    show : bool
        What the caller was told: False for no bar.

    Examples
    --------
    >>> sum(bar([1, 2, 3], desc="adding", show=False))
    6
    """
    kind = _kind()
    nested = _State.depth > 0
    wanted = show and is_shown() and not (nested and _in_notebook() and not _has_widgets())
    return kind(iterable, total=total, desc=desc, unit=unit, leave=not nested, delay=DELAY, disable=not wanted)


def in_steps(total: int, desc: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function that says by :func:`step` where it is; it takes ``progress=``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def inner(*args: P.args, **kwargs: P.kwargs) -> R:
            with _steps(total, desc, bool(kwargs.get("progress", True))):
                return function(*args, **kwargs)

        return inner

    return decorate


def step(name: str) -> None:
    """Begin the next step of the function that is decorated by :func:`in_steps`; nothing outside of one."""
    ticker = _State.steps
    if ticker is not None:
        ticker.update(0 if ticker.started is None else 1)
        ticker.started = name
        ticker.set_description(name)


def tell(text: str) -> None:
    """Write a text above the bars of a terminal; nothing where no bars are, nor in a notebook, which keeps it."""
    if is_shown() and not _in_notebook():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)


@contextmanager
def _steps(total: int, desc: str, show: bool) -> Iterator[None]:
    before = _State.steps
    with bar(total=total, desc=desc, unit="step", show=show) as ticker:
        ticker.started = None
        _State.steps = ticker
        try:
            yield
            ticker.update(0 if ticker.started is None else 1)
        finally:
            _State.steps = before


def _kind() -> Any:
    """The class of the bars: widgets in a notebook that has them, else text."""
    if _in_notebook() and _has_widgets():
        from tqdm.notebook import tqdm as base
    else:
        from tqdm import tqdm as base
    return _counted(base)


_CLASSES: dict[Any, Any] = {}


def _counted(base: Any) -> Any:
    """The class with a count of its bars that are open."""
    if base in _CLASSES:
        return _CLASSES[base]

    class Bar(base):  # type: ignore[misc]
        _counts = False
        started: str | None = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if not self.disable:
                self._counts = True
                _State.depth += 1

        def close(self) -> None:
            if self._counts:
                self._counts = False
                _State.depth = max(0, _State.depth - 1)
            super().close()

    _CLASSES[base] = Bar
    return Bar


def _in_notebook() -> bool:
    """Whether a notebook shows what is written; IPython is loaded there."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _has_widgets() -> bool:
    return find_spec("ipywidgets") is not None
