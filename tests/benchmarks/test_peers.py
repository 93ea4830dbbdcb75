"""The comparison with peers: trials travel to an adapter and back, and what fails is a row that says why."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

ADAPTER = """
from common import from_draws, run
import numpy as np

def known(trial):
    assert trial["groups"] is None and not trial["observational"]
    return from_draws(trial["new"][:, 0] + np.linspace(-1, 1, 1001)[:, None])

def fails(trial):
    raise ValueError("no overlap")

run({"known": known, "point": lambda trial: (np.zeros(len(trial["new"])),), "fails": fails}, ["numpy"])
"""


@pytest.fixture
def peers(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_peers", BENCHMARKS / "peers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    folder = tmp_path / "adapters"
    folder.mkdir()
    shutil.copy(BENCHMARKS / "peers" / "common.py", folder)
    (folder / f"{module.OURS}_adapter.py").write_text(ADAPTER)
    (folder / "nothing.txt").write_text("no package has this / name\n")
    (folder / "nothing_adapter.py").write_text("")
    monkeypatch.setattr(module, "FOLDER", folder)
    return module


def trial(n=50):
    rng = np.random.default_rng(0)
    new = rng.standard_normal((n, 2))
    fixed = {"groups": np.empty(0), "observational": False, "seed": 3, "truth": new[:, 0] + 0.5}
    return {"X": rng.standard_normal((20, 2)), "y": np.zeros(20), "t": np.arange(20) % 2, "new": new, **fixed}


def test_errors_and_coverage_come_from_the_adapters_answers(peers, monkeypatch, tmp_path):
    made = trial()
    monkeypatch.setattr(peers, "simulated_trial", lambda number: made)
    (text, versions) = peers.run([peers.OURS], tmp_path, [], 2)
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in text.splitlines()}
    expected = 0.5 / made["truth"].std()
    assert lines["known"][2] == f"{expected:.3f} (0.000)"
    assert lines["known"][3:5] == ["0.500", "1.000"]  # half a unit off, intervals of +-0.95
    assert lines["point"][4] == "no intervals"
    assert float(lines["point"][3]) == pytest.approx(np.sqrt(np.mean(made["truth"] ** 2)), abs=1e-3)
    assert lines["fails"][2] == "not run: ValueError: no overlap"
    assert versions == f"Versions: numpy {np.__version__}."
    (peers.FOLDER / f"{peers.OURS}_adapter.py").write_text(ADAPTER.replace("0.5", "0.6") + "\nraise SystemExit('x')")
    assert "not run: x" in peers.run([peers.OURS], tmp_path, [], 2)[0]  # another adapter: not the kept answers


def test_an_environment_that_cannot_be_built_says_why(peers, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "simulated_trial", lambda number: trial())
    with monkeypatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        text, versions = peers.run(["nothing"], tmp_path, [], 1)
    assert "nothing | not run: " in text
    assert "ERROR" in text or "Invalid requirement" in text
    assert versions == "Versions: ."
