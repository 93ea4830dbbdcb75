"""Every example runs as it stands, in an empty folder; those that load a study by name, on Uganda too.

The first map, and what starts processes of its own, run in a new interpreter as a reader runs them; the others share
this one's imports.
"""

import ast
import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ALONE = ("first_effect_map", "laptop_to_cluster")
NAMED = [path for path in EXAMPLES if 'load_study("simulated_trial")' in path.read_text()]
UGANDA = Path(os.environ.get("CAUSALSAT_DATA", "")) / "uganda_yop" / "units.csv"


def cells(text):
    """The cells of a script, each with its marker."""
    return re.split(r"^(?=# %%)", text, flags=re.M)[1:]


def run(script, folder):
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "Agg"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_here(script, folder, monkeypatch):
    """Run a script in this process, in another folder; figures are drawn and not shown."""
    monkeypatch.chdir(folder)
    plt.switch_backend("Agg")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # as in an interpreter of its own
            runpy.run_path(str(script), run_name="__main__")
    finally:
        plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch):
    if path.stem in ALONE:
        run(path, tmp_path)
    else:
        run_here(path, tmp_path, monkeypatch)
    assert (tmp_path / "outputs" / path.stem / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not UGANDA.is_file(), reason="set CAUSALSAT_DATA to the folder that holds uganda_yop")
@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_example_runs_on_uganda(path, tmp_path):
    """The same cells but those that look at a simulated truth, on coarser cells of the map."""
    text = "".join(cell for cell in cells(path.read_text()) if "simulate.satellite_trial" not in cell)
    text = text.replace('load_study("simulated_trial")', 'load_study("uganda_yop")')
    script = tmp_path / path.name
    script.write_text(re.sub(r"resolution=\d+", "resolution=2500", text))
    run(script, tmp_path)
    report = (tmp_path / "outputs" / path.stem / "report.html").read_text()
    assert "Permutation test" in report


def test_examples_have_cells_and_a_heading():
    assert len(EXAMPLES) >= 18
    for path in EXAMPLES:
        text = path.read_text()
        assert text.startswith("# %% [markdown]\n# # "), path
        assert text.count("# %%") >= 4, path


def test_examples_answer_the_questions_that_were_promised():
    names = {path.stem for path in EXAMPLES}
    assert names >= {
        "first_effect_map",
        "is_it_real",
        "which_images_respond",
        "image_sequences",
        "dose_response",
        "image_confounding",
        "unobserved_confounding",
        "selective_labels",
        "coming_from_other_packages",
        "laptop_to_cluster",
        "foundation_model_embeddings",
        "several_arms",
        "take_up",
        "missing_outcomes",
        "predicted_outcomes",
        "displaced_places",
    }


def test_the_first_map_takes_ten_lines():
    text = (ROOT / "examples" / "first_effect_map.py").read_text()
    to_the_map = "".join(cell for cell in cells(text) if "simulate.satellite_trial" not in cell)
    code = [line for line in to_the_map.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 10, code
    assert any(".write(" in line for line in code)
    ast.parse(to_the_map)
