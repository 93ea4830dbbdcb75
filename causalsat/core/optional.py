"""Packages of optional extras: whether they are there, asked before long work begins."""

from __future__ import annotations

from importlib.util import find_spec

from causalsat.exceptions import MissingExtraError

__all__ = ["is_installed", "require"]


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported.

    Examples
    --------
    >>> is_installed("numpy"), is_installed("no_such_package")
    (True, False)
    """
    try:
        return find_spec(package) is not None
    except ValueError:  # a module that somebody made by hand, without a specification
        return True


def require(package: str, extra: str, purpose: str, otherwise: str = "") -> None:
    """Refuse what needs a package that is not there.

    Parameters
    ----------
    package : str
        What is imported.
    extra : str
        The extra of causalsat that brings it.
    purpose : str
        What needs it.
    otherwise : str
        What can be done without it.

    Raises
    ------
    MissingExtraError
        If it is not installed.

    Examples
    --------
    >>> require("no_such_package", "maps", "an interactive map", "pass html=False")
    Traceback (most recent call last):
    causalsat.exceptions.MissingExtraError: an interactive map needs the package no_such_package, which...
    """
    if not is_installed(package):
        ways = [f"pip install 'causalsat[{extra}]'", *([otherwise] if otherwise else [])]
        raise MissingExtraError(
            f"{purpose} needs the package {package}, which is not installed", todo=", or ".join(ways)
        )
