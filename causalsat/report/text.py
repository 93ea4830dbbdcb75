"""A report page as Markdown and as LaTeX: the same words, tables and pictures as the HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from causalsat._tables import latex_text, markdown_text

if TYPE_CHECKING:
    from causalsat.report.page import Figure, Page, Section

__all__ = ["latex_page", "markdown_page"]

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
        yield f"```text\n{section.text}\n```"


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
        yield f"{{\\scriptsize\n\\begin{{verbatim}}\n{section.text}\n\\end{{verbatim}}\n}}"


def _path(figure: Figure, folder: str | os.PathLike[str]) -> str:
    return Path(os.path.relpath(figure.path, folder)).as_posix()
