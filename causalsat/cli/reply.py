"""What a command answers: text or one line of JSON on standard output, log and warnings on standard error, exit code.

JSON has the same keys for every command: ``schema`` (1), ``version``, ``command``, ``status`` ("ok", "findings" or
"error"), ``result`` (null in case of an error), ``warnings`` (kind and message of each) and ``error`` (kind, what,
expected, todo; null without one).
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import typer

from causalsat.core.names import printed
from causalsat.exceptions import CausalsatError, CausalsatWarning
from causalsat.version import __version__

__all__ = ["DONE", "FINDINGS", "INTERNAL", "INTERRUPTED", "UNUSABLE", "UNWRITTEN", "Reply", "answer"]

DONE, FINDINGS, UNUSABLE, INTERNAL, UNWRITTEN, INTERRUPTED = 0, 1, 2, 70, 74, 130
LOG = logging.getLogger("causalsat")


@dataclass
class Reply:
    """What a command found: ``result`` for JSON, ``text`` for people; ``findings`` makes the exit code 1."""

    command: str
    as_json: bool
    result: Any = None
    text: str = ""
    findings: bool = False
    warnings: list[dict[str, str]] = field(default_factory=list)

    def send(self, status: str, error: dict[str, Any] | None = None) -> None:
        """Print it."""
        if self.as_json:
            fields = {"schema": 1, "version": __version__, "command": self.command, "status": status}
            fields |= {"result": self.result, "warnings": self.warnings, "error": error}
            typer.echo(json.dumps(fields, default=str))
        elif error is None:
            typer.echo(printed(self.text))


@contextmanager
def answer(command: str, as_json: bool = False, verbose: bool = False, quiet: bool = False) -> Iterator[Reply]:
    """Run a command's body and answer for it: output, warnings, errors and exit code.

    Parameters
    ----------
    command : str
        Its name.
    as_json : bool
        One line of JSON instead of text.
    verbose : bool
        The package's log (information and details) on standard error, and tracebacks.
    quiet : bool
        Neither warnings nor log.
    """
    reply = Reply(command, as_json)
    with _logging(verbose, quiet), _warnings(reply, quiet):
        try:
            yield reply
        except (typer.Exit, KeyboardInterrupt):
            raise
        except Exception as error:
            _fail(reply, error, verbose)
        reply.send("findings" if reply.findings else "ok")
    if reply.findings:
        raise typer.Exit(FINDINGS)


def _fail(reply: Reply, error: Exception, verbose: bool) -> NoReturn:
    """Say what went wrong; errors of the package and of files end with 2, others, which are defects, with 70."""
    known = isinstance(error, CausalsatError | OSError)
    parts = {key: getattr(error, key, None) for key in ("expected", "todo")}
    what = getattr(error, "what", None) or str(error)
    reply.result = None
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    message = str(error) if known else f"a defect of the program: {type(error).__name__}: {error}"
    typer.secho(f"causalsat: {printed(message)}", err=True, fg="red")
    if not known and not verbose:
        typer.secho("causalsat: run it again with --verbose and report what it prints", err=True)
    with suppress(OSError):  # the message above is on standard error
        reply.send("error", {"kind": type(error).__name__, "what": what, **parts})
    raise typer.Exit(UNUSABLE if known else INTERNAL)


@contextmanager
def _logging(verbose: bool, quiet: bool) -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("causalsat: %(message)s" if not verbose else "%(name)s: %(message)s"))
    before = LOG.level
    LOG.setLevel(logging.DEBUG if verbose else logging.CRITICAL if quiet else logging.WARNING)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)


@contextmanager
def _warnings(reply: Reply, quiet: bool) -> Iterator[None]:
    """Warnings as lines of the log and of the JSON; those of other packages only with their name."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
            return
        reply.warnings.append({"kind": category.__name__, "message": str(message)})
        level = logging.WARNING if issubclass(category, CausalsatWarning) else logging.INFO
        LOG.log(level, "%s: %s", category.__name__, message)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
