"""A table as a Word document: the few parts of the format that a table with a caption and notes needs."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from causalsat.core.cells import Rows
from causalsat.core.files import whole_file, writing

__all__ = ["write_docx"]

_TYPES = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
    'wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)
_SPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RULE = '<w:{side} w:val="single" w:sz="{size}" w:space="0" w:color="auto"/>'
_DATE = (1980, 1, 1, 0, 0, 0)  # the same table is the same file


def write_docx(
    path: Path,
    columns: Sequence[str],
    rows: Rows,
    caption: str = "",
    notes: Sequence[str] = (),
    rule_before: int = -1,
) -> None:
    """Write a table as a Word document, atomically.

    Parameters
    ----------
    path : Path
        The file.
    columns : sequence of str
        Headings.
    rows : sequence of sequences of str
        Cells; a line break begins a new paragraph.
    caption : str
        Stands above the table.
    notes : sequence of str
        Stand below it.
    rule_before : int
        Row with a rule above it; none by default.
    """
    last = len(rows) - 1
    lines = [_row(columns, ("top", 12), ("bottom", 6), head=True)]
    for k, row in enumerate(rows):
        rules = [("top", 6)] if k == rule_before else []
        lines.append(_row(row, *rules, *([("bottom", 12)] if k == last else [])))
    grid = "".join("<w:gridCol/>" for _ in columns)
    body = [
        _paragraph(caption, bold=True) if caption else "",
        '<w:tbl><w:tblPr><w:tblW w:w="0" w:type="auto"/></w:tblPr>',
        f"<w:tblGrid>{grid}</w:tblGrid>{''.join(lines)}</w:tbl>",
        *(_paragraph(note, size=18) for note in notes),
        "<w:sectPr/>",
    ]
    document = (
        f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:document xmlns:w="{_SPACE}"><w:body>'
        f"{''.join(body)}</w:body></w:document>"
    )
    with writing(path), whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in (
            ("[Content_Types].xml", _TYPES),
            ("_rels/.rels", _RELATIONS),
            ("word/document.xml", document),
        ):
            file.writestr(zipfile.ZipInfo(name, _DATE), text, zipfile.ZIP_DEFLATED)


def _row(cells: Sequence[str], *rules: tuple[str, int], head: bool = False) -> str:
    borders = "".join(_RULE.format(side=side, size=size) for side, size in rules)
    own = f"<w:tcPr><w:tcBorders>{borders}</w:tcBorders></w:tcPr>" if rules else ""
    repeated = "<w:trPr><w:tblHeader/></w:trPr>" if head else ""
    found = []
    for j, cell in enumerate(cells):
        paragraphs = "".join(_paragraph(line, centred=j > 0, close=True) for line in cell.split("\n"))
        found.append(f"<w:tc>{own}{paragraphs}</w:tc>")
    return f"<w:tr>{repeated}{''.join(found)}</w:tr>"


def _paragraph(text: str, *, bold: bool = False, centred: bool = False, size: int = 0, close: bool = False) -> str:
    layout = ('<w:spacing w:after="0"/>' if close else "") + ('<w:jc w:val="center"/>' if centred else "")
    letters = ("<w:b/>" if bold else "") + (f'<w:sz w:val="{size}"/>' if size else "")
    plain = "".join(c for c in text if c >= " " or c == "\t")  # XML has no other control characters
    return (
        f"<w:p><w:pPr>{layout}</w:pPr><w:r><w:rPr>{letters}</w:rPr>"
        f'<w:t xml:space="preserve">{escape(plain)}</w:t></w:r></w:p>'
    )
