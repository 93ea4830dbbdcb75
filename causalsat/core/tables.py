"""Tables for papers: one table of text cells as Markdown or LaTeX, and what results share to give theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from causalsat.core.cells import Rows, text_cells, to_the_right
from causalsat.core.files import whole_file, writing
from causalsat.core.names import printed
from causalsat.core.notebook import fragment, frame_table, paragraph

__all__ = [
    "Tabular",
    "latex_table",
    "latex_text",
    "latex_verbatim",
    "markdown_fence",
    "markdown_table",
    "markdown_text",
    "spreadsheet_text",
    "text_cells",
    "write_csv",
]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # a row that begins with one would be an option of the line break before it
        "\u2212": r"$-$",
        "\u00d7": r"$\times$",
    }
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # LaTeX refuses some, others end a paragraph
_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")
_PRINTED_ROWS = 12
_LONG = 36  # letters of a cell that LaTeX should break
_LIST = re.compile(r"^(\d*)([-+.)=])(?=\s|=*$)")  # at the start of a paragraph: an item, or a rule below a heading
_MINUS = re.compile(r"(?<![^\s(])-(?=[\d.])")  # before a number, at the start of a word


def _latex_columns(columns: Sequence[str], rows: Rows) -> str:
    """Alignment of each column; long texts are broken into lines."""
    longest = [max((len(row[j]) for row in rows), default=0) for j in range(len(columns))]
    wide = sum(length > _LONG for length in longest)
    text = rf"p{{{0.7 / wide:.2f}\linewidth}}" if wide else "l"
    sides = zip(to_the_right(columns, rows), longest, strict=True)
    return "".join("r" if right else text if length > _LONG else "l" for right, length in sides)


# ---------------------------------------------------------------------- Markdown
def markdown_text(text: str) -> str:
    r"""Text in which no character is read as markup; line breaks become spaces.

    Examples
    --------
    >>> print(markdown_text("prob_positive <0.1> of *a|b*"))
    prob\_positive \<0.1\> of \*a\|b\*
    """
    escaped = re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(_CONTROL.sub(" ", text).split()))
    return _LIST.sub(r"\1\\\2", escaped)


def markdown_fence(text: str) -> str:
    """Preformatted text between fences that nothing in it closes.

    Examples
    --------
    >>> print(markdown_fence("a"))
    ```text
    a
    ```
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def markdown_table(columns: Sequence[str], rows: Rows, caption: str = "") -> str:
    """A table as GitHub and Pandoc read it: numbers to the right, words to the left, caption above.

    Examples
    --------
    >>> print(markdown_table(["", "estimate"], [["ATE", "0.7"]], "Effects"))
    Effects
    <BLANKLINE>
    |  | estimate |
    |:---|---:|
    | ATE | 0.7 |
    """
    head = f"{markdown_text(caption)}\n\n" if caption else ""
    rule = "|" + "|".join("---:" if right else ":---" for right in to_the_right(columns, rows)) + "|"
    lines = [
        "| " + " | ".join(markdown_text(" ".join(cell.split())) for cell in row) + " |" for row in [columns, *rows]
    ]
    return head + "\n".join([lines[0], rule, *lines[1:]])


# ---------------------------------------------------------------------- LaTeX
def latex_text(text: str) -> str:
    r"""Text in which LaTeX reads no character as a command; a minus before a number is one in print too.

    Line breaks become spaces, since an empty line ends the argument of a title or caption.

    Examples
    --------
    >>> print(latex_text("a_1 & 90 %: -0.2"))
    a\_1 \& 90 \%: $-$0.2
    """
    return _MINUS.sub("$-$", " ".join(_CONTROL.sub(" ", text).split()).translate(_LATEX))


def latex_verbatim(text: str) -> str:
    r"""Text for a ``verbatim`` environment, which nothing in it ends.

    Examples
    --------
    >>> print(latex_verbatim(r"a \end{verbatim}\input{b}"))
    a \end {verbatim}\input{b}
    """
    plain = _CONTROL.sub(" ", text.expandtabs().replace("\r\n", "\n"))
    return plain.replace(r"\end{verbatim", r"\end {verbatim")


def latex_table(
    columns: Sequence[str], rows: Rows, caption: str = "", label: str = "", notes: Sequence[str] = ()
) -> str:
    r"""A floating table with the rules of the package booktabs, which is all that its document must load.

    Examples
    --------
    >>> print(latex_table(["", "estimate"], [["ATE", "-0.7"]], "Effects", "tab:ate"))
    \begin{table}[htbp]
    \centering
    \caption{Effects}
    \label{tab:ate}
    \begin{tabular}{lr}
    \toprule
     & estimate \\
    \midrule
    ATE & $-$0.7 \\
    \bottomrule
    \end{tabular}
    \end{table}
    """
    import pandas as pd

    cells = [[latex_text(" ".join(cell.split())) for cell in row] for row in [columns, *rows]]
    style = pd.DataFrame(cells[1:], columns=range(len(columns))).style.hide(axis="index")
    head = [cell.replace("{", "{{").replace("}", "}}") for cell in cells[0]]  # pandas formats these names
    table = style.relabel_index(head, axis="columns").to_latex(
        hrules=True,
        position="htbp",
        position_float="centering",
        caption=latex_text(caption) or None,
        label=label or None,
        column_format=_latex_columns(columns, rows),
    )
    text = " ".join(latex_text(note.rstrip(".") + ".") for note in notes)
    foot = f"\\par\\smallskip\n\\parbox{{\\linewidth}}{{\\footnotesize \\emph{{Notes:}} {text}}}\n" if text else ""
    return table.rstrip().replace(r"\end{table}", foot + r"\end{table}")


# ---------------------------------------------------------------------- CSV
def spreadsheet_text(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins with = + - @ gets an apostrophe before it.

    Numbers, also those that are text, stay as they are.

    Examples
    --------
    >>> [spreadsheet_text(v) for v in ("=1+1", "@sum", "-", "-0.5", "north", -0.5)]
    ["'=1+1", "'@sum", '-', '-0.5', 'north', -0.5]
    """
    if not isinstance(value, str) or len(value) < 2 or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


def write_csv(frame: Any, path: str | os.PathLike[str], **options: Any) -> None:
    """Write a data frame as CSV atomically, with no cell, heading or label that a spreadsheet takes for a formula.

    Parameters
    ----------
    frame : DataFrame
        Index and columns are written with it.
    path : path-like
        The file; its folder is made.
    **options
        Of ``DataFrame.to_csv``.
    """
    safe = frame.copy(deep=False)
    for position, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "biufcmM":
            safe.isetitem(position, frame.iloc[:, position].astype(object).map(spreadsheet_text).to_numpy())
    safe.columns = _spreadsheet_labels(frame.columns)
    safe.index = _spreadsheet_labels(frame.index)
    with writing(path), whole_file(path) as temporary:
        safe.to_csv(temporary, **options)


def _spreadsheet_labels(labels: Any) -> Any:
    """Labels of rows or columns, and their names, that no spreadsheet takes for a formula."""
    safe = labels.set_names([spreadsheet_text(name) for name in labels.names])
    if labels.nlevels > 1:
        return safe.map(lambda values: tuple(map(spreadsheet_text, values)))
    return safe if labels.dtype.kind in "biufcmM" else safe.map(spreadsheet_text)


# ---------------------------------------------------------------------- results
class Tabular:
    """A result that gives its table to a paper and to a notebook: whatever has ``to_dataframe()``.

    It prints as the first line of its class's documentation and the table. A subclass may draw ``_picture()`` and
    say more in ``_notes()``.
    """

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Print as a table: ``dataclass`` writes no representation where the class has one of its own."""
        super().__init_subclass__(**options)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Tabular.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """Say what it is, and print its table; the middle of a long one is left out."""
        frame = self.to_dataframe()  # type: ignore[attr-defined]
        unnamed = frame.index.name is None and type(frame.index).__name__ == "RangeIndex"
        layout: dict[str, Any] = {"index": not unnamed, "max_rows": _PRINTED_ROWS}
        table = frame.to_string(float_format=lambda value: f"{value:.4g}", **layout)
        return printed("\n".join([self._title(), table, *self._notes()]))

    def _title(self) -> str:
        first = (type(self).__doc__ or "").strip().partition("\n")[0].rstrip(".")
        return first or type(self).__name__

    def _picture(self) -> str:
        """A picture as SVG, where one says more than the table."""
        return ""

    def _notes(self) -> list[str]:
        """Lines below the table."""
        return []

    def _repr_html_(self) -> str:
        """The table, a picture and notes, for notebooks."""
        table = frame_table(self.to_dataframe(), self._title())  # type: ignore[attr-defined]
        return fragment(table, self._picture(), *map(paragraph, self._notes()))

    def to_markdown(self, *, digits: int = 3, caption: str = "", **options: Any) -> str:
        """The table of ``to_dataframe(**options)`` as Markdown.

        Parameters
        ----------
        digits : int
            Decimal places of numbers that are not whole.
        caption : str
            Stands above the table.
        **options
            Passed to ``to_dataframe``, such as ``level=0.9``.
        """
        return markdown_table(*self._cells(digits, options), caption)

    def to_latex(self, *, digits: int = 3, caption: str = "", label: str = "", **options: Any) -> str:
        r"""The table of ``to_dataframe(**options)`` as LaTeX; the document loads the package booktabs.

        Parameters
        ----------
        digits : int
            Decimal places of numbers that are not whole.
        caption, label : str
            Of the floating table; ``\ref{label}`` refers to it.
        **options
            Passed to ``to_dataframe``, such as ``level=0.9``.
        """
        return latex_table(*self._cells(digits, options), caption, label)

    def _cells(self, digits: int, options: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        frame = self.to_dataframe(**options)  # type: ignore[attr-defined]
        columns, rows = text_cells(frame, digits)
        if len(columns) > 1 and frame.index.name is None and type(frame.index).__name__ == "RangeIndex":
            return columns[1:], [row[1:] for row in rows]  # numbers of rows say nothing
        return columns, rows
