"""Progress bars: shown where somebody looks, quiet when asked, nested ones leave one line."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from causalsat.core import progress
from causalsat.core.progress import bar, in_steps, is_shown, set_progress, step
from causalsat.evaluation import permutation_test
from causalsat.exceptions import ParameterError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def look(monkeypatch):
    """Makes standard error a terminal (in the test itself, since pytest sets it anew) and gives it; no delay."""
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("CAUSALSAT_PROGRESS", raising=False)
    set_progress(None)

    def start():
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    yield start
    set_progress(None)


def test_a_terminal_shows_bars_and_a_file_does_not(look, monkeypatch):
    terminal = look()
    assert is_shown()
    list(bar(range(3), desc="folds"))
    assert "folds: 100%" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_shown()
    list(bar(range(3), desc="folds"))
    assert sys.stderr.getvalue() == ""


def test_quiet_by_switch_variable_argument_and_in_continuous_integration(look, monkeypatch):
    terminal = look()
    set_progress(False)
    list(bar(range(3), desc="folds"))
    set_progress(None)
    monkeypatch.setenv("CAUSALSAT_PROGRESS", "0")
    list(bar(range(3), desc="folds"))
    monkeypatch.delenv("CAUSALSAT_PROGRESS")
    monkeypatch.setenv("CI", "true")
    list(bar(range(3), desc="folds"))
    monkeypatch.delenv("CI")
    list(bar(range(3), desc="folds", show=False))
    assert terminal.getvalue() == ""
    monkeypatch.setenv("CAUSALSAT_PROGRESS", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert is_shown()


def test_nested_bars_leave_one_line(look):
    terminal = look()
    for _ in bar(range(2), desc="outer"):
        list(bar(range(3), desc="inner"))
    left = terminal.getvalue().replace("\x1b[A", "")
    assert left.count("outer: 100%") == 1
    assert left.rstrip().splitlines()[-1].split("\r")[-1].startswith("outer: 100%")
    assert progress._State.depth == 0


def test_a_bar_that_an_error_ends_does_not_hide_later_ones(look):
    look()
    with pytest.raises(RuntimeError), bar(total=3, desc="first"):
        raise RuntimeError
    assert progress._State.depth == 0


def test_steps_are_named_and_end_complete(look):
    terminal = look()

    @in_steps(2, "job")
    def job(*, progress=True):
        step("reading")
        step("fitting")
        return 7

    assert job() == 7
    assert "fitting: 100%" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    step("outside of a job")
    assert job(progress=False) == 7


def test_permutations_show_a_bar(look):
    terminal = look()
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((60, 2)), np.tile([0, 1], 30)
    y = rng.standard_normal(60)
    shown = permutation_test(z, y, t, n_permutations=9)
    assert "permutations: 100%" in terminal.getvalue()
    quiet = permutation_test(z, y, t, n_permutations=9, progress=False)
    assert shown.p_value == quiet.p_value


def test_another_value_is_refused():
    with pytest.raises(ParameterError, match="True, False or None"):
        set_progress("no")
