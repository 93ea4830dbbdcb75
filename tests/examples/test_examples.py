"""Every example runs as it stands, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "Agg"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "outputs" / path.stem / "report.html").exists()


def test_examples_have_cells_and_a_heading():
    assert EXAMPLES
    for path in EXAMPLES:
        text = path.read_text()
        assert text.startswith("# %% [markdown]\n# # "), path
        assert text.count("# %%") >= 4, path
