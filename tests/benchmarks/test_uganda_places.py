"""The simulated outcomes of benchmarks/uganda_places.py: effects as large as they say, made of the parts they say."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def worlds(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import uganda_places

    yield uganda_places
    folder = str(Path(uganda_places.__file__).parent)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            sys.modules.pop(name)


@pytest.fixture
def places(worlds):
    """Places that were made up, in the form of Uganda's."""
    rng, n_sites = np.random.default_rng(0), 120
    site = np.repeat(np.arange(n_sites), 5)
    made = worlds.Places.__new__(worlds.Places)
    household = rng.standard_normal((len(site), 3))
    made.__dict__ |= {
        "site": site,
        "covariates": pd.DataFrame(
            {"x1": (household[:, 0] > 0) * 1.0, "x3": household[:, 1], "x5": (household[:, 2] > 0) * 1.0}
        ),
        "kilometres": rng.uniform(-200, 200, (n_sites, 2))[site],
        "shown": [worlds.standardised(rng.standard_normal((n_sites, 100)))[site] for _ in range(3)],
        "statistics": worlds.standardised(rng.standard_normal((n_sites, 10)))[site],
    }
    return made


def test_trials_have_the_effects_and_the_assignment_that_they_say(worlds, places):
    for number in range(12):
        share, tau, t, y = places.trial(number)
        assert share.sum() == pytest.approx(1)
        assert (share[1] == 0) == (number % 4 == 0)
        assert (share[2] == 0) == (number % 3 == 0)
        assert tau.mean() == pytest.approx(worlds.TAU_MEAN)
        assert tau.std() == pytest.approx(worlds.TAU_SD)
        by_site = pd.DataFrame({"site": places.site, "t": t, "tau": tau}).groupby("site")
        assert (by_site.t.nunique() == 2).sum() <= 49
        if share[2] == 0:
            assert by_site.tau.nunique().max() == 1
        again = places.trial(number)
        np.testing.assert_array_equal(again[3], y)


def test_outcomes_hold_the_effects(places):
    """The difference in means of many trials is that of the effects; noise and parts average out."""
    gaps = []
    for number in range(60):
        _, tau, t, y = places.trial(number)
        gaps.append(y[t == 1].mean() - y[t == 0].mean() - tau.mean())
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / np.sqrt(len(gaps))
    assert np.std(gaps) < 0.3
