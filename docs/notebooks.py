"""The examples as notebooks with what they show: ``python docs/notebooks.py [example ...]`` runs them anew.

A notebook has the cells of its script, but for a ``print`` of an object that ends a cell: there the object itself
ends it, which a notebook shows as a table or a picture. The hash of the cells is written beside the outputs. Tests
compare it with the script's, so that a changed script is a notebook to make anew; they execute nothing.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
MAX_BYTES = 500_000
MAX_PX = 900
OF_OTHERS = r"^\S+\.py:\d+: (TqdmWarning|FutureWarning|DeprecationWarning)"
KEY = "causalsat_script_sha256"
SENTENCES = {"verdict", "paragraph", "export_text", "to_string"}  # methods whose text a notebook would show in quotes
SETTINGS = {"CAUSALSAT_PROGRESS": "0", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def scripts() -> list[Path]:
    """The examples."""
    return sorted((ROOT / "examples").glob("*.py"))


def notebook_of(script: Path) -> Any:
    """The notebook of a script, without outputs, with the hash of its cells."""
    notebook = jupytext.read(script, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.source = shown(cell.source)
        cell.metadata.clear()
        cell.id = f"cell-{number}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            KEY: digest(notebook),
        }
    )
    return notebook


def digest(notebook: Any) -> str:
    """Hash of the cells' kinds and sources."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def shown(source: str) -> str:
    """A cell whose last line shows an object in the place of printing it."""
    body = ast.parse(source).body
    if not body or not isinstance(body[-1], ast.Expr) or not isinstance(body[-1].value, ast.Call):
        return source
    last, call = body[-1], body[-1].value
    plain = isinstance(call.func, ast.Name) and call.func.id == "print" and len(call.args) == 1 and not call.keywords
    if not plain or isinstance(call.args[0], ast.JoinedStr | ast.Constant | ast.Starred) or _is_text(call.args[0]):
        return source
    lines = source.splitlines()
    inside = ast.get_source_segment(source, call.args[0])
    after = source.splitlines()[last.end_lineno :] if last.end_lineno is not None else []
    return "\n".join([*lines[: last.lineno - 1], str(inside), *after])


def _is_text(node: ast.expr) -> bool:
    """Whether it is a call of a method that returns text."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENTENCES


def execute(notebook: Any) -> Any:
    """Run the cells in an empty folder, and leave nothing of this machine in the outputs."""
    from nbclient import NotebookClient

    os.environ.update(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            _scrub(output, folder)
        if cell.cell_type == "code":
            cell["outputs"] = [o for o in cell["outputs"] if not (_is_of_others(o) or _is_axes(o))]
    return notebook


def _is_axes(output: Any) -> bool:
    """Whether an output only names the axes of a figure that is shown below it."""
    data = output.get("data", {})
    return set(data) == {"text/plain"} and data["text/plain"].startswith("<Axes")


def _is_of_others(output: Any) -> bool:
    """Whether an output only warns of what other packages will change."""
    return output.get("name") == "stderr" and re.search(OF_OTHERS, output["text"]) is not None


def _scrub(output: Any, folder: str) -> None:
    """Paths of this machine, and the numbers of this process, out of an output's text."""
    places = ((re.escape(str(ROOT)) + "/", ""), (re.escape(folder) + "/", ""), (r"\S*/ipykernel_\d+/\d+\.py", "cell"))
    places += ((r"\S*/site-packages/", ""),)

    def plain(text: str) -> str:
        for pattern, instead in places:
            text = re.sub(pattern, instead, text)
        return text

    if "text" in output:
        output["text"] = plain(output["text"])
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/"):
            output["data"][kind] = plain(value)
        elif kind == "image/png":
            output["data"][kind] = _small(value)


def _small(png: str) -> str:
    """A picture of at most MAX_PX, in 128 colours."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        drawn = image.convert("RGB")
        drawn.thumbnail((MAX_PX, MAX_PX))
        out = io.BytesIO()
        drawn.quantize(128).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def main(names: list[str]) -> None:
    """Write the notebooks of the named examples, of all without names."""
    FOLDER.mkdir(exist_ok=True)
    for script in scripts():
        if names and script.stem not in names:
            continue
        text = nbformat.writes(execute(notebook_of(script))) + "\n"
        if len(text.encode()) > MAX_BYTES:
            raise SystemExit(f"{script.stem}: {len(text.encode()):,} bytes, more than {MAX_BYTES:,}")
        (FOLDER / f"{script.stem}.ipynb").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{script.stem}: {len(text.encode()):,} bytes\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
