"""Screens of notebooks in a real browser, light and dark: ``python docs/screens.py``.

Makes the pictures of ``docs/screens`` from the executed notebooks; ``--whole FOLDER [example ...]`` makes one of
every notebook from top to bottom, to be looked at. Needs nbconvert and a Chromium on the path (or in CHROMIUM).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
SCREENS = ROOT / "docs" / "screens"
THEMES = ("light", "dark")
WIDTH, TALLEST = 1000, 12_000
MARGIN = 16
#: Name of a screen: the example, and the text with which its cell's last line begins.
SHOWN = {
    "check": ("first_effect_map", "study.check()"),
    "analysis": ("first_effect_map", "analysis"),
    "plan": ("whom_to_treat", "plan.table"),
    "arms": ("several_arms", "analysis.comparison"),
}


def cell_of(notebook: Any, last: str) -> Any:
    """The notebook with one cell only, whose last line begins so; raises if there is none."""
    cells = [
        c for c in notebook.cells if c.cell_type == "code" and c.source.rstrip().split("\n")[-1].startswith(last)
    ]
    if not cells:
        raise SystemExit(f"no cell ends with {last!r}")
    return nbformat.from_dict({**notebook, "cells": cells[:1]})


def page(notebook: Any, theme: str) -> str:
    """The notebook as a page, as JupyterLab shows it."""
    from nbconvert import HTMLExporter

    return HTMLExporter(theme=theme, embed_images=True).from_notebook_node(notebook)[0]  # type: ignore[no-any-return]


def photograph(html: str, target: Path) -> None:
    """A picture of a page, without the empty space below it, in few colours."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium on the path: install it, or name it in the environment variable CHROMIUM")
    with tempfile.TemporaryDirectory() as name:
        source, taken = Path(name) / "page.html", Path(name) / "page.png"
        source.write_text(html, encoding="utf-8")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={taken}"]
        options += [
            f"--window-size={WIDTH},{TALLEST}",
            "--virtual-time-budget=5000",
            f"--user-data-dir={name}/profile",
        ]
        subprocess.run([chromium, *options, source.as_uri()], capture_output=True, check=True, timeout=300)
        image = Image.open(taken).convert("RGB")
    pixels = np.asarray(image)
    drawn = np.flatnonzero((pixels != pixels[-1, -1]).any(axis=(1, 2)))
    image = image.crop((0, 0, image.width, min(image.height, int(drawn.max(initial=0)) + MARGIN)))
    target.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(target, optimize=True)


def whole(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Every notebook from top to bottom, in each theme."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        for theme in THEMES:
            html = page(notebook, theme)
            target = folder / f"{path.stem}_{theme}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_suffix(".html").write_text(html, encoding="utf-8")
            photograph(html, target)
            yield target


def screens() -> Iterator[Path]:
    """The screens of the documentation."""
    for name, (example, last) in SHOWN.items():
        notebook = cell_of(nbformat.read(NOTEBOOKS / f"{example}.ipynb", as_version=4), last)
        for theme in THEMES:
            target = SCREENS / f"{name}_{theme}.png"
            photograph(page(notebook, theme), target)
            yield target


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", type=Path, metavar="FOLDER", help="whole notebooks, as pictures and pages")
    parser.add_argument("names", nargs="*", help="examples, with --whole; default: all")
    options = parser.parse_args(argv)
    for path in screens() if options.whole is None else whole(options.whole, options.names):
        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
