"""Analyses and models side by side, as a table for a paper: estimates with stars, standard errors, sizes, notes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from causalsat.core.notebook import fragment, html_table, paragraph
from causalsat.core.tables import Tabular, latex_text, markdown_table, markdown_text
from causalsat.exceptions import DataError, ParameterError
from causalsat.report.docx import write_docx
from causalsat.report.page import write_atomically

__all__ = ["ModelTable", "compare_models"]

Errors = Literal["se", "interval", "p", "none"]
ERRORS = {
    "se": "Standard errors (of a posterior: standard deviations) in brackets.",
    "interval": "95 % intervals in brackets.",
    "p": "p-values in brackets.",
    "none": "",
}
Z95 = 1.959963984540054
SYNONYMS = {
    "mean": "estimate", "coef": "estimate", "value": "estimate", "sd": "se", "std err": "se", "std_error": "se",
    "pvalue": "p_value", "p": "p_value", "P>|t|": "p_value", "P>|z|": "p_value", "[0.025": "lower", "0.975]": "upper",
}  # fmt: skip


@dataclass(frozen=True)
class ModelTable(Tabular):
    """Models side by side; what :func:`compare_models` gives.

    Attributes
    ----------
    names : tuple of str
        Headings of the models.
    rows : tuple of (str, tuple of str)
        Label and cells of each estimate: the estimate with its stars and, after a line break, what is in brackets.
    facts : tuple of (str, tuple of str)
        Label and cells below the rule: outcome, units, clusters.
    notes : tuple of str
        What brackets and stars mean, and what the caller added.
    caption : str
        Stands above the table.
    values : DataFrame
        One row an estimate: ``model, row, estimate, se, lower, upper, p_value``.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    caption: str = ""
    values: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    def to_dataframe(self) -> pd.DataFrame:
        """Table of text: one row an estimate or a fact, one column a model."""
        cells = [[" ".join(cell.split("\n")) for cell in row] for _, row in self._all]
        return pd.DataFrame(cells, columns=list(self.names), index=[label for label, _ in self._all])

    @property
    def _all(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return self.rows + self.facts

    def _title(self) -> str:
        return self.caption or "Models side by side"

    def _notes(self) -> list[str]:
        return list(self.notes)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The table as HTML that follows the theme of the page that it stands in."""
        rows = [[label, *cells] for label, cells in self._all]
        return fragment(html_table(["", *self.names], rows, self._title()), *map(paragraph, self.notes))

    def to_markdown(self, *, digits: int = 3, caption: str = "", **options: Any) -> str:
        """The table as Markdown, its notes below it; ``digits`` were chosen when the table was made."""
        rows = [[label, *(" ".join(cell.split("\n")) for cell in cells)] for label, cells in self._all]
        table = markdown_table(["", *self.names], rows, caption or self.caption)
        return "\n\n".join([table, *(markdown_text(note) for note in self.notes)])

    def to_latex(self, *, digits: int = 3, caption: str = "", label: str = "", **options: Any) -> str:
        r"""The table as LaTeX, floating; the document loads booktabs. ``digits`` were chosen when it was made.

        Parameters
        ----------
        digits : int
            Without effect here.
        caption, label : str
            Of the floating table; ``\ref{label}`` refers to it.
        **options
            Without effect here.
        """
        lines = [r"\begin{table}[htbp]", r"\centering"]
        if caption or self.caption:
            lines.append(rf"\caption{{{latex_text(caption or self.caption)}}}")
        if label:
            lines.append(rf"\label{{{label}}}")
        lines += [rf"\begin{{tabular}}{{l{'c' * len(self.names)}}}", r"\toprule"]
        lines += [_latex_row(["", *self.names]), r"\midrule"]
        for name, cells in self.rows:
            lines += _latex_rows(name, cells)
        lines += [r"\midrule", *(_latex_row([name, *cells]) for name, cells in self.facts)] if self.facts else []
        lines += [r"\bottomrule", r"\end{tabular}"]
        if self.notes:
            text = latex_text(" ".join(self.notes))
            lines += [r"\par\smallskip", rf"\parbox{{\linewidth}}{{\footnotesize \emph{{Notes:}} {text}}}"]
        return "\n".join([*lines, r"\end{table}"])

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the table to a file, atomically, and return its path.

        Parameters
        ----------
        path : path-like
            The ending decides: ``.tex``, ``.md``, ``.html`` or ``.docx`` (Word).

        Raises
        ------
        ParameterError
            For another ending.
        """
        target = Path(path)
        render: dict[str, Callable[[], str]] = {
            ".tex": self.to_latex,
            ".md": self.to_markdown,
            ".html": lambda: _PAGE.format(body=self.to_html()),
        }
        if target.suffix == ".docx":
            rows = [[label, *cells] for label, cells in self._all]
            rule = len(self.rows) if self.facts else -1
            write_docx(target, ["", *self.names], rows, self.caption, self.notes, rule)
        elif target.suffix in render:
            write_atomically(target, render[target.suffix]() + "\n")
        else:
            raise ParameterError(
                f"a table named {target.name!r}", expected="a name that ends in .tex, .md, .html or .docx"
            )
        return target


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Models side by side</title>
<style>:root {{ color-scheme: light dark; }} body {{ font-family: system-ui, sans-serif; margin: 2rem; }}</style>
</head>
<body><main>{body}</main></body></html>"""


def compare_models(
    models: Sequence[Any] | Mapping[str, Any],
    *,
    rows: Sequence[str] | Mapping[str, str] | None = None,
    errors: Errors = "se",
    stars: Sequence[float] = (0.1, 0.05, 0.01),
    digits: int = 3,
    caption: str = "",
    notes: Sequence[str] = (),
) -> ModelTable:
    """Several analyses or models as the columns of one table.

    Parameters
    ----------
    models : sequence, or mapping of heading to model
        Each an ``Analysis``; a fitted estimator or pipeline of this package (the rows of its ``summary()``); an
        ``EffectPosterior`` (one row a unit, so give ``ate()`` or ``gate(groups)``); a result with ``to_dataframe()``,
        or a data frame, with ``estimate`` and ``se``; or a fitted model of statsmodels, linearmodels or pyfixest.
    rows : sequence of str, or mapping of row to label, optional
        Which rows, in this order, and what the table calls them; all by default.
    errors : {"se", "interval", "p", "none"}
        What stands in brackets below an estimate.
    stars : sequence of float
        p-values below which a star is added each; empty for none. Posteriors have no p-values and no stars.
    digits : int
        Decimal places.
    caption : str
        Of the table.
    notes : sequence of str
        Further notes below it.

    Returns
    -------
    ModelTable
        With ``to_latex()``, ``to_markdown()``, ``to_html()`` and ``write(path)`` (.tex, .md, .html, .docx).

    Raises
    ------
    DataError
        If a model has no estimates, or none has a row that was asked for.
    ParameterError
        If an option is none of those named.

    Examples
    --------
    >>> import pandas as pd
    >>> small = pd.DataFrame({"estimate": [0.5], "se": [0.1], "p_value": [0.001]}, index=["treatment"])
    >>> large = pd.DataFrame({"estimate": [0.4], "se": [0.3], "p_value": [0.2]}, index=["treatment"])
    >>> compare_models({"2012": small, "2015": large}).to_dataframe()
                         2012           2015
    treatment  0.500*** (0.100)  0.400 (0.300)
    """
    if errors not in ERRORS:
        raise ParameterError(f"errors={errors!r}", expected="'se', 'interval', 'p' or 'none'")
    limits = sorted(float(limit) for limit in stars)[::-1]
    if any(not 0 < limit < 1 for limit in limits):
        raise ParameterError(f"stars={stars!r}", expected="p-values between 0 and 1, such as (0.1, 0.05, 0.01)")
    named = dict(models) if isinstance(models, Mapping) else {f"({k + 1})": m for k, m in enumerate(models)}
    if not named:
        raise ParameterError("no models", expected="at least one")
    found = {str(name): _estimates(model, str(name)) for name, model in named.items()}
    labels = _labels([table for table, _ in found.values()], rows)
    body = [
        (label, tuple(_cell(table, row, errors, limits, digits) for table, _ in found.values()))
        for row, label in labels.items()
    ]
    kinds = dict.fromkeys(kind for _, facts in found.values() for kind in facts)
    below = [(kind, tuple(facts.get(kind, "") for _, facts in found.values())) for kind in kinds]
    starred = any("*" in cell for _, cells in body for cell in cells)
    legend = ", ".join(f"{'*' * (k + 1)} p < {limit:g}" for k, limit in enumerate(limits))
    told = [ERRORS[errors], f"{legend}." if starred else "", *notes]
    values = pd.concat(
        [table.rename_axis("row").reset_index().assign(model=name) for name, (table, _) in found.items()]
    )
    return ModelTable(
        tuple(found), tuple(body), tuple(below), tuple(note for note in told if note), caption,
        values.reset_index(drop=True)[["model", "row", "estimate", "se", "lower", "upper", "p_value"]],
    )  # fmt: skip


# ---------------------------------------------------------------------- what models have
def _estimates(model: Any, name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Estimates of a model (estimate, se, lower, upper, p_value; a row each), and facts about it."""
    for knows, read in _READERS if not isinstance(model, type) else ():
        if knows(model):
            table, facts = read(model)
            full = pd.DataFrame(index=[str(label) for label in table.index])
            for column in ("estimate", "se", "lower", "upper", "p_value"):
                values = table[column] if column in table else np.full(len(table), np.nan)
                full[column] = np.asarray(values, dtype=float)
            half = Z95 * full["se"]
            full["lower"] = full["lower"].fillna(full["estimate"] - half)
            full["upper"] = full["upper"].fillna(full["estimate"] + half)
            return full, {key: value for key, value in facts.items() if value}
    raise DataError(
        f"model {name!r} of type {type(model).__name__}, which has no estimates",
        expected="an Analysis, a fitted estimator, a posterior, a table with estimate and se, or a model of "
        "statsmodels, linearmodels or pyfixest",
        todo="fit it first, or pass a data frame with the columns estimate, se and p_value",
    )


def _of_analysis(model: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    table = model.average.drop(columns=["estimand"], errors="ignore").astype(float)
    slope, gap, autoc = model.blp, model.gates, model.autoc[0]
    table.loc["calibration slope", ["estimate", "se", "p_value"]] = slope.slope, slope.slope_se, slope.p_value
    table.loc["highest less lowest group", ["estimate", "se", "p_value"]] = (
        gap.difference, gap.difference_se, gap.difference_p_value,
    )  # fmt: skip
    table.loc["AUTOC", ["estimate", "se", "p_value"]] = autoc.estimate, autoc.se, autoc.p_value
    study, test = model.study, model.permutation
    facts = {
        "Outcome": str(study.outcome_label),
        "Units": f"{study.n_units:,}",
        "Clusters": "" if study.n_clusters is None else f"{study.n_clusters:,}",
        "No heterogeneity, p": "" if test is None else f"{test.p_value:.3f}",
    }
    return table, facts


def _of_table(model: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    table = model.to_dataframe() if hasattr(model, "to_dataframe") else model
    named = table.set_index("method") if "method" in table and type(table.index).__name__ == "RangeIndex" else table
    return _renamed(named), _counts(table)


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    """Columns under one set of names, whatever a summary or another package calls them; the first of each counts."""
    names = {str(column): SYNONYMS.get(str(column), str(column)) for column in table.columns}
    found = table.rename(columns=names)
    return found.loc[:, ~found.columns.duplicated()]


def _counts(table: pd.DataFrame) -> dict[str, str]:
    names = {"n": "Units", "n_units": "Units", "clusters": "Clusters", "n_groups": "Clusters"}
    found = {}
    for column, name in names.items():
        known = set(table[column].dropna()) if column in table else set()
        if len(known) == 1:  # one size for all rows
            found[name] = f"{known.pop():,.0f}"
    return found


def _of_estimator(model: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    fitted = model.steps[-1][1] if hasattr(model, "steps") else model
    summary = fitted.summary()
    sizes = {key: summary.diagnostics[key] for key in ("units", "clusters") if _whole(summary.diagnostics, key)}
    facts = {key.capitalize(): f"{n:,}" for key, n in sizes.items()} | {"Estimator": type(fitted).__name__}
    return _renamed(summary.table), facts


def _whole(facts: Mapping[str, Any], key: str) -> bool:
    return isinstance(facts.get(key), int | np.integer)


def _of_regression(model: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    """Statsmodels has ``bse`` and ``pvalues``, linearmodels ``std_errors``, pyfixest methods."""
    if hasattr(model, "coef") and callable(model.coef):
        table = pd.DataFrame({"estimate": model.coef(), "se": model.se(), "p_value": model.pvalue()})
        n = getattr(model, "_N", None)
    else:
        se = model.bse if hasattr(model, "bse") else model.std_errors
        params = pd.Series(model.params)
        columns = {"estimate": params, "se": np.asarray(se), "p_value": np.asarray(model.pvalues)}
        table, n = pd.DataFrame(columns, index=params.index), getattr(model, "nobs", None)
    return table, {"Units": "" if n is None else f"{int(n):,}"}


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda model: all(hasattr(model, name) for name in names)


def _is_table(model: Any) -> bool:
    table = model.to_dataframe() if hasattr(model, "to_dataframe") else model
    return hasattr(table, "columns") and "estimate" in _renamed(table.iloc[:0])


def _is_fitted(model: Any) -> bool:
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    return hasattr(last, "summary") and hasattr(last, "effect")


_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], tuple[pd.DataFrame, dict[str, str]]]], ...] = (
    (_has("average", "blp", "gates", "autoc"), _of_analysis),
    (_is_table, _of_table),
    (_is_fitted, _of_estimator),
    (_has("params", "bse", "pvalues"), _of_regression),
    (_has("params", "std_errors", "pvalues"), _of_regression),
    (_has("coef", "se", "pvalue"), _of_regression),
)


# ---------------------------------------------------------------------- cells
def _labels(tables: Sequence[pd.DataFrame], rows: Any) -> dict[str, str]:
    """Rows of the table and what they are called: all of them, in the order in which they come."""
    known = dict.fromkeys(str(label) for table in tables for label in table.index)
    if rows is None:
        return {name: name for name in known}
    wanted = dict(rows) if isinstance(rows, Mapping) else {str(name): str(name) for name in rows}
    absent = [name for name in wanted if name not in known]
    if absent:
        raise DataError(f"no model has the row {absent[0]!r}", expected=f"rows among {', '.join(list(known)[:20])}")
    return wanted


def _cell(table: pd.DataFrame, row: str, errors: str, limits: Sequence[float], digits: int) -> str:
    if row not in table.index:
        return ""
    values = table.loc[row]
    if isinstance(values, pd.DataFrame):  # a row that stands twice
        values = values.iloc[0]
    if not math.isfinite(values["estimate"]):
        return ""
    p = values["p_value"]
    starred = "" if math.isnan(p) else "*" * sum(p < limit for limit in limits)
    below = {
        "se": _number(values["se"], digits),
        "p": _number(p, digits),
        "interval": f"{_number(values['lower'], digits)}, {_number(values['upper'], digits)}",
        "none": "",
    }[errors]
    estimate = f"{_number(values['estimate'], digits)}{starred}"
    return f"{estimate}\n({below})" if below.strip(", ") else estimate


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"


def _latex_rows(label: str, cells: Sequence[str]) -> list[str]:
    """Estimates in one row, brackets in the next."""
    first, second = [label], [""]
    for cell in cells:
        estimate, _, below = cell.partition("\n")
        first.append(estimate)
        second.append(below)
    line = " & ".join(_starred(cell) for cell in first) + r" \\"
    return [line, _latex_row(second)] if any(second) else [line]


def _starred(cell: str) -> str:
    plain = cell.rstrip("*")
    stars = len(cell) - len(plain)
    return latex_text(plain) + (rf"$^{{{'*' * stars}}}$" if stars and plain else "")
