"""What a cell of a notebook shows: tables, facts and pictures as HTML that follows the theme of the page.

Every text is escaped. Colours are those of the text around, so that light and dark themes both fit; tables have a
caption and say which cells are headings.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from causalsat.core.cells import Rows, shortened, text_cells, to_the_right
from causalsat.core.names import escaped

__all__ = ["fragment", "frame_table", "html_facts", "html_table", "paragraph", "picture", "thumbnail"]

MAX_ROWS = 12
THUMBNAIL_PX = 560
STYLE = """<style>
.causalsat { max-width: 62rem; }
.causalsat .cs-scroll { overflow-x: auto; margin: .4em 0 .8em; }
.causalsat table { border-collapse: collapse; border: none; margin: 0; color: inherit; background: transparent;
  font-variant-numeric: tabular-nums; }
.causalsat table caption { text-align: left; caption-side: top; color: inherit; padding: 0 0 .3em; font-weight: 600; }
.causalsat table thead { border-top: 2px solid currentColor; border-bottom: 1px solid currentColor; }
.causalsat table tbody { border-bottom: 2px solid currentColor; }
.causalsat table tr, .causalsat table tr:nth-child(even) { background: transparent; }
.causalsat table th, .causalsat table td { text-align: left !important; vertical-align: top !important; border: none;
  color: inherit; padding: .2em .9em .2em 0 !important; max-width: 40em; white-space: normal;
  background: transparent; }
.causalsat table th.cs-number, .causalsat table td.cs-number { text-align: right !important; }
.causalsat table tbody th { font-weight: 400; }
.causalsat table tbody th.cs-error, .causalsat table tbody th.cs-warning { font-weight: 700; }
.causalsat p { margin: .4em 0; }
.causalsat svg, .causalsat img { display: block; max-width: 100%; height: auto; margin: .4em 0; }
</style>"""


def fragment(*parts: str) -> str:
    """One output of a cell: its style and its parts, which are HTML already.

    Examples
    --------
    >>> fragment(paragraph("a < b")).endswith('<p>a &lt; b</p></div>')
    True
    """
    return f'<div class="causalsat">{STYLE}{"".join(part for part in parts if part)}</div>'


def paragraph(text: str, *, strong: bool = False) -> str:
    """A paragraph of text, escaped."""
    inside = f"<strong>{escaped(text)}</strong>" if strong else escaped(text)
    return f"<p>{inside}</p>"


def html_table(columns: Sequence[str], rows: Rows, caption: str, *, marks: Sequence[str] | None = None) -> str:
    """A table of text cells; its first column names the rows.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : sequence of sequences of str
        Cells; a line break stays one.
    caption : str
        What the table shows.
    marks : sequence of str, optional
        Class of each row's first cell, such as "cs-error".

    Examples
    --------
    >>> html = html_table(["", "estimate"], [["<b>", "0.7"]], "Effects")
    >>> '<th scope="row">&lt;b&gt;</th>' in html, '<th scope="col" class="cs-number">estimate</th>' in html
    (True, True)
    """
    right = to_the_right(columns, rows)

    def cell(j: int, text: str, tag: str, attributes: str = "") -> str:
        number = ' class="cs-number"' if right[j] else ""
        return f"<{tag}{attributes}{number}>{_lines(text)}</{tag}>"

    head = "".join(
        cell(j, name, "th", ' scope="col"') if name else cell(j, "", "td") for j, name in enumerate(columns)
    )
    body = []
    for k, row in enumerate(rows):
        mark = f' class="{marks[k]}"' if marks else ""
        first = f'<th scope="row"{mark}>{_lines(row[0])}</th>'
        body.append(f"<tr>{first}{''.join(cell(j, text, 'td') for j, text in enumerate(row) if j)}</tr>")
    return (
        f'<div class="cs-scroll" role="group" aria-label="{escaped(caption, quote=True)}" tabindex="0"><table>'
        f"<caption>{escaped(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _lines(text: str) -> str:
    return "<br>".join(escaped(line) for line in text.split("\n"))


def frame_table(frame: Any, caption: str, *, digits: int | None = None, max_rows: int = MAX_ROWS) -> str:
    """The table of a data frame, without the middle of a long one; decimal places as its columns need them.

    Examples
    --------
    >>> import pandas as pd
    >>> "0.7" in frame_table(pd.DataFrame({"estimate": [0.7]}, index=["ATE"]), "Effects", digits=1)
    True
    """
    short = shortened(frame, max_rows)
    columns, rows = text_cells(short, digits)
    if len(short) < len(frame):
        rows.insert(max_rows // 2, ["\u2026"] * len(columns))
        caption = f"{caption} ({len(short):,} of {len(frame):,} rows)"
    unnamed = frame.index.name is None and type(frame.index).__name__ == "RangeIndex"
    if unnamed and len(columns) > 1:
        columns, rows = columns[1:], [row[1:] for row in rows]
    return html_table(columns, rows, caption)


def html_facts(facts: Mapping[str, Any], caption: str) -> str:
    """A table of two columns: what, and its value.

    Examples
    --------
    >>> '<th scope="row">bands</th><td>red, nir</td>' in html_facts({"bands": "red, nir"}, "Imagery")
    True
    """
    rows = "".join(
        f'<tr><th scope="row">{escaped(str(name))}</th><td>{escaped(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return (
        f'<div class="cs-scroll" role="group" aria-label="{escaped(caption, quote=True)}" tabindex="0"><table>'
        f"<caption>{escaped(caption)}</caption><tbody>{rows}</tbody></table></div>"
    )


def picture(png: bytes, alt: str) -> str:
    """A PNG picture within the page."""
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escaped(alt, quote=True)}">'


def thumbnail(png: bytes, alt: str) -> str:
    """A PNG picture, made smaller where it is wide, so that a notebook stays small."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        out = io.BytesIO()
        small.quantize(128).save(out, "PNG", optimize=True)
    return picture(out.getvalue(), alt)
