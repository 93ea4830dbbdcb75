"""Findings of Study.check, and the report that prints them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any, Literal

from causalsat.core.notebook import fragment, html_table, paragraph
from causalsat.core.tables import Tabular
from causalsat.exceptions import DataError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MARKS = {"error": "ERROR", "warning": "warning", "note": "note"}
WIDTH = 100


@dataclass(frozen=True)
class Finding:
    """One thing that the check found, and what to do about it.

    Attributes
    ----------
    level : {"error", "warning", "note"}
        An error must be repaired before a fit; a warning may change conclusions; a note is good to know.
    topic : str
        A short key: "missing values", "treatment", "imagery", ...
    what : str
        What was found, with numbers.
    todo : str
        What to do about it.
    data : Any
        The figures behind it: a data frame, a dict or a list of unit labels.
    stops_analyse : bool
        Whether :func:`causalsat.analyse` cannot take such a study, though other estimators can.
    """

    level: Level
    topic: str
    what: str
    todo: str
    data: Any = field(default=None, compare=False, repr=False)
    stops_analyse: bool = False


@dataclass(frozen=True)
class StudyReport(Tabular):
    """What :meth:`causalsat.Study.check` found; prints as a table.

    Attributes
    ----------
    title : str
        The study in one line.
    findings : tuple of Finding
        Errors first.
    passed : tuple of str
        What was looked at and is in order.

    Examples
    --------
    >>> report = StudyReport("toy", (Finding("error", "outcome", "y misses 1 of 3 values", "drop it"),))
    >>> report.ok
    False
    >>> report.errors[0].todo
    'drop it'
    """

    title: str
    findings: tuple[Finding, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be repaired before a fit."""
        return tuple(f for f in self.findings if f.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that may change conclusions."""
        return tuple(f for f in self.findings if f.level == "warning")

    def about(self, topic: str) -> tuple[Finding, ...]:
        """Findings on one topic."""
        return tuple(f for f in self.findings if f.topic == topic)

    def to_dataframe(self) -> Any:
        """One row for each finding: level, topic, what, todo."""
        import pandas as pd

        rows = [(f.level, f.topic, f.what, f.todo) for f in self.findings]
        return pd.DataFrame(rows, columns=["level", "topic", "what", "todo"])

    def raise_if_errors(self, *, analyse: bool = False) -> StudyReport:
        """Raise a DataError that lists the errors; return the report itself where there is none.

        Parameters
        ----------
        analyse : bool
            Whether what :func:`causalsat.analyse` cannot take counts as an error too.

        Raises
        ------
        DataError
            With what was found, and what to do about the first of it.
        """
        grave = tuple(f for f in self.findings if f.level == "error" or (analyse and f.stops_analyse))
        if grave:
            more = f" (and {len(grave) - 1} more: print the report)" if len(grave) > 1 else ""
            wanted = (
                "a study that analyse() can take" if all(f.stops_analyse for f in grave) else "a study without errors"
            )
            raise DataError("; ".join(f.what for f in grave), expected=wanted, todo=grave[0].todo + more)
        return self

    def __str__(self) -> str:
        """A table: level, topic, what was found and, below it, what to do."""
        rule = "=" * WIDTH
        lines = [*textwrap.wrap(self.title, WIDTH, subsequent_indent="  "), rule]
        topic_width = max([len(f.topic) for f in self.findings], default=0)
        indent = " " * (7 + 2 + topic_width + 2)
        for finding in self.findings:
            head = f"{MARKS[finding.level]:<7}  {finding.topic:<{topic_width}}  "
            lines += textwrap.wrap(finding.what, WIDTH, initial_indent=head, subsequent_indent=indent)
            lines += textwrap.wrap(
                finding.todo, WIDTH, initial_indent=indent + "-> ", subsequent_indent=indent + "   "
            )
        if self.passed:
            lines += ["-" * WIDTH] if self.findings else []
            lines += textwrap.wrap("In order: " + ", ".join(self.passed) + ".", WIDTH, subsequent_indent="  ")
        return "\n".join([*lines, rule, self._verdict()])

    __repr__ = __str__

    def _verdict(self) -> str:
        counts = [(sum(f.level == level for f in self.findings), level) for level in LEVELS]
        counted = ", ".join(f"{n} {level}{'s' if n != 1 else ''}" for n, level in counts)
        stops = ", ".join(dict.fromkeys(f.topic for f in self.findings if f.stops_analyse))
        ready = f"Ready to fit, though not by analyse(): see {stops}." if stops else "Ready to fit."
        return f"{counted}. " + (ready if self.ok else "Repair the errors before fitting.")

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        rows = [(f.level, f.topic, f.what, f.todo) for f in self.findings]
        marks = [f"cs-{f.level}" for f in self.findings]
        columns = ("level", "topic", "what was found", "what to do")
        table = html_table(columns, rows, self.title, marks=marks) if rows else paragraph(self.title, strong=True)
        passed = f"In order: {', '.join(self.passed)}." if self.passed else ""
        return fragment(table, paragraph(passed), paragraph(self._verdict(), strong=True))
