"""The benchmark runner keeps other sections, and the benchmarks of the main job run at a tiny size."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_new_section_replaces_the_old_one_and_leaves_the_others():
    runner = load("run_all")
    text = runner.update("# Benchmarks\n", "A", "## A\n\nfirst\n")
    text = runner.update(text, "B (x)", "## B (x)\n\nother\n")
    text = runner.update(text, "A", "## A\n\nsecond \\1\n")
    assert text.count("## A\n") == 1
    assert "first" not in text
    assert "second \\1" in text
    assert "other" in text
    assert text.index("## A") < text.index("## B (x)")


def test_every_listed_benchmark_exists_and_has_its_section():
    runner = load("run_all")
    committed = (BENCHMARKS / "RESULTS.md").read_text()
    for name, title in runner.ORDER:
        assert (BENCHMARKS / f"{name}.py").exists()
        assert f"## {title}\n" in committed


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        load("run_all").main(["nothing"])
    assert "nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_simulated_trial_at_a_tiny_size():
    module = load("simulated_trial")
    found = module.run(landscapes=2, draws=1, null=2)
    assert len(found["rows"]) == 2
    assert all(row["correlation"] > 0.85 for row in found["rows"])
    assert len(found["p_values"]) == 4
    assert "coverage of 90 % intervals" in module.to_markdown(found, draws=1)
