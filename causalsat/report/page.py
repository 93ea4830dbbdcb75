"""Build the report page from titled sections of text, tables and pictures."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalsat.core.files import whole_file, writing
from causalsat.core.tables import (
    latex_table,
    latex_text,
    latex_verbatim,
    markdown_fence,
    markdown_table,
    markdown_text,
    text_cells,
)
from causalsat.exceptions import ParameterError

__all__ = [
    "Figure",
    "Page",
    "Section",
    "Table",
    "flat_metrics",
    "latex_page",
    "markdown_page",
    "render_page",
    "write_atomically",
    "write_metrics",
]


_PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[a4paper,margin=2.5cm]{geometry}
\usepackage{iftex}
\ifPDFTeX
  \usepackage[T1]{fontenc}
\fi
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage{hyperref}
\setlength{\parindent}{0pt}
\setlength{\parskip}{6pt}"""


def markdown_page(page: Page, folder: str | os.PathLike[str] = ".") -> str:
    """Markdown of a page; pictures by their paths as seen from ``folder``."""
    parts = [f"# {markdown_text(page.title)}", "\n>\n".join(f"> {markdown_text(text)}" for text in page.lead)]
    for section in page.sections:
        parts += _markdown_section(section, folder)
    if page.footer:
        parts += ["---", *(markdown_text(text) for text in page.footer)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_section(section: Section, folder: str | os.PathLike[str]) -> Iterator[str]:
    yield f"## {markdown_text(section.title)}"
    yield from (markdown_text(text) for text in section.paragraphs)
    yield from (table.to_markdown() for table in section.tables)
    for figure in section.figures:
        yield f"![{markdown_text(figure.alt)}](<{_path(figure, folder)}>)"
        if figure.caption:
            yield f"*{markdown_text(figure.caption)}*"
    if section.text:
        yield markdown_fence(section.text)


def latex_page(page: Page, folder: str | os.PathLike[str] = ".") -> str:
    """LaTeX document of a page; pictures by their paths as seen from ``folder``."""
    title = latex_text(page.title)
    body = [rf"\title{{{title}}}", r"\date{}", r"\begin{document}", r"\maketitle"]
    body += [r"\begin{quote}", "\n\n".join(map(latex_text, page.lead)), r"\end{quote}"]
    for anchor, section in zip(page.anchors, page.sections, strict=True):
        body += _latex_section(section, anchor, folder)
    if page.footer:
        body += [r"\medskip\hrule\medskip", r"{\small", "\n\n".join(map(latex_text, page.footer)), "}"]
    return "\n".join([_PREAMBLE, *body, r"\end{document}"]) + "\n"


def _latex_section(section: Section, anchor: str, folder: str | os.PathLike[str]) -> Iterator[str]:
    yield f"\n\\section{{{latex_text(section.title)}}}\\label{{sec:{anchor}}}"
    yield "\n\n".join(map(latex_text, section.paragraphs))
    for number, table in enumerate(section.tables, start=1):
        yield table.to_latex(f"tab:{anchor}-{number}")
    for figure in section.figures:
        caption = latex_text(figure.caption or figure.alt)
        yield "\\begin{figure}[htbp]\n\\centering"
        yield rf"\includegraphics[width=\linewidth,height=0.8\textheight,keepaspectratio]{{{_path(figure, folder)}}}"
        yield f"\\caption{{{caption}}}\n\\end{{figure}}"
    if section.text:
        yield f"{{\\scriptsize\n\\begin{{verbatim}}\n{latex_verbatim(section.text)}\n\\end{{verbatim}}\n}}"


def _path(figure: Figure, folder: str | os.PathLike[str]) -> str:
    path = Path(os.path.relpath(figure.path, folder)).as_posix()
    if clash := sorted(set(path) & set('\\{}%#~^$&<>"\n\r')):
        raise ParameterError(
            f"a figure at {path!r}, whose path has {' '.join(map(repr, clash))}",
            expected="a path that LaTeX and Markdown take as it is",
            todo="write the figure beside the report, under a name of letters and digits",
        )
    return path


@dataclass(frozen=True)
class Figure:
    """A picture with the words that stand for it.

    Attributes
    ----------
    path : Path
        A PNG file; its bytes are put into the page.
    alt : str
        What the picture shows, for those who cannot see it.
    caption : str
        What to conclude from it.
    """

    path: Path
    alt: str
    caption: str = ""

    @property
    def data(self) -> str:
        """The file as a data URI."""
        return "data:image/png;base64," + base64.b64encode(Path(self.path).read_bytes()).decode()


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes
    ----------
    columns : sequence of str
        Headings; the first column names the rows.
    rows : sequence of sequences of str
        Cells.
    caption : str
        What the table shows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @classmethod
    def of(cls, frame: Any, caption: str = "", digits: int = 3) -> Table:
        """The table of a data frame: its index names the rows, numbers that are not whole are rounded.

        Examples
        --------
        >>> import pandas as pd
        >>> Table.of(pd.DataFrame({"error": [0.12345, 1.0], "units": [1200, 80]}, index=["ours", "theirs"])).rows
        [['ours', '0.123', '1,200'], ['theirs', '1.000', '80']]
        """
        columns, rows = text_cells(frame, digits)
        return cls(columns, rows, caption)

    def to_markdown(self) -> str:
        """The table as Markdown, caption above."""
        return markdown_table(self.columns, self.rows, self.caption)

    def to_latex(self, label: str = "") -> str:
        r"""The table as LaTeX, floating; its document loads the package booktabs, ``\ref{label}`` refers to it."""
        return latex_table(self.columns, self.rows, self.caption, label)


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables, figures and preformatted text."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    text: str = ""

    @property
    def anchor(self) -> str:
        """Identifier for links within the page."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """The whole report: title, a summary box, sections, a footer."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    footer: Sequence[str] = ()

    @property
    def anchors(self) -> tuple[str, ...]:
        """Identifier of each section for links within the page, no two alike."""
        seen: dict[str, int] = {}
        names = []
        for name in (section.anchor for section in self.sections):
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
        return tuple(names)

    def to_markdown(self, folder: str | os.PathLike[str] = ".") -> str:
        """The page as Markdown, as GitHub and Pandoc read it; pictures by their paths as seen from ``folder``."""
        return markdown_page(self, folder)

    def to_latex(self, folder: str | os.PathLike[str] = ".") -> str:
        r"""The page as a LaTeX document; pictures by their paths as seen from ``folder``.

        It needs booktabs, geometry, graphicx, hyperref and iftex, which every distribution has. Any engine takes it;
        letters that are not Latin need XeLaTeX or LuaLaTeX.
        """
        return latex_page(self, folder)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as one file, atomically, and return its path.

        Parameters
        ----------
        path : path-like
            The ending decides: ``.html`` (pictures inside), ``.md`` or ``.tex`` (pictures by their paths).

        Raises
        ------
        ParameterError
            For another ending.
        """
        target = Path(path)
        render = {".html": lambda: render_page(self), ".md": lambda: self.to_markdown(target.parent)}
        render[".tex"] = lambda: self.to_latex(target.parent)
        if target.suffix not in render:
            raise ParameterError(f"a report named {target.name!r}", expected="a name that ends in .html, .md or .tex")
        write_atomically(target, render[target.suffix]())
        return target


def render_page(page: Page) -> str:
    """HTML text of a page; everything in it is escaped, nothing is loaded from elsewhere.

    Examples
    --------
    >>> text = render_page(Page("A & B", ["One line."], [Section("Result", ["x < y"])]))
    >>> "A &amp; B" in text, "x &lt; y" in text
    (True, True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("causalsat.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(page=page)


def flat_metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values under flat keys; numbers that are not finite become null.

    Examples
    --------
    >>> import numpy as np
    >>> flat_metrics({"rate": {"autoc": np.float64(0.5), "se": float("nan")}, "n": np.int64(3)})
    {'rate.autoc': 0.5, 'rate.se': None, 'n': 3}
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= {f"{key}.{k}": v for k, v in flat_metrics(value).items()}
        elif isinstance(value, list | tuple):
            out[str(key)] = [flat_metrics({"v": v})["v"] for v in value]
        else:
            plain = value.item() if hasattr(value, "item") else value
            out[str(key)] = None if isinstance(plain, float) and not math.isfinite(plain) else plain
    return out


def write_metrics(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write every figure of a report as JSON with flat, sorted keys."""
    write_atomically(path, json.dumps(flat_metrics(values), indent=1, sort_keys=True) + "\n")


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with writing(path), whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
