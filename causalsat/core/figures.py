"""Results draw themselves: a result names its figure, and the code of the figure loads when it is drawn."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

__all__ = ["Drawn"]


class Drawn:
    """A result with a figure of its own in :mod:`causalsat.plots`."""

    __slots__ = ()
    _figure: ClassVar[str] = ""

    def plot(self, **options: Any) -> Any:
        """Draw the result; the options are those of its function in ``causalsat.plots``.

        Returns
        -------
        matplotlib Axes
        """
        return getattr(import_module("causalsat.plots"), self._figure)(self, **options)
