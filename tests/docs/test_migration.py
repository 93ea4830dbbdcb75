"""The pages for readers who come from another package: our blocks run, one after the other, up to a long one."""

import os
import re
from pathlib import Path

import pytest

import causalsat

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"
LONG = ("analyse(", "from econml")  # minutes on a shared core
PAGES = ("from_econml", "from_grf", "from_causalimages", "from_stata")


@pytest.fixture(scope="module")
def study():
    return causalsat.simulate.satellite_trial(n_units=200, n_sites=40, size_px=320, seed=1).study()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_ours_run(page, study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "Agg")
    blocks = re.findall(r"```python\n(# causalsat\n.*?)```", (HOWTO / f"{page}.md").read_text(), flags=re.S)
    assert len(blocks) >= 2
    names = {"study": study}
    for block in blocks:
        if any(call in block for call in LONG):
            break
        exec(compile(block, page, "exec"), names)


def test_every_page_is_linked():
    assert all(f"({page}.md)" in (HOWTO / "index.md").read_text() for page in PAGES)
