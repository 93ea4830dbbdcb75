"""Lee bounds: values by hand, invariances, coverage of the truth and of the bounds."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.evaluation import lee_bounds
from causalsat.evaluation.attrition import imbens_manski
from causalsat.exceptions import DataError


def trial(n=2000, seed=0, clusters=None, direction=1):
    """Units answer if treated or if their type is 'always'; effect 1 on those that always do."""
    rng = np.random.default_rng(seed)
    t = rng.permutation(n) % 2
    group = np.arange(n)
    if clusters is not None:
        group = np.repeat(np.arange(clusters), n // clusters)
        t = (rng.permutation(clusters) % 2)[group]
    kind = rng.choice(3, n, p=[0.6, 0.2, 0.2])  # always, helped, never
    shared = 0.0 if clusters is None else 0.5 * rng.standard_normal(clusters)[group]
    y = t + 0.8 * (kind == 1) + shared + rng.standard_normal(n)
    helped = t == 1 if direction == 1 else t == 0
    seen = (kind == 0) | ((kind == 1) & helped)
    return np.where(seen, y, np.nan), t, group


def by_hand(y, t):
    seen = ~np.isnan(y)
    q1, q0 = seen[t == 1].mean(), seen[t == 0].mean()
    high = 1 if q1 >= q0 else 0
    p = 1 - min(q1, q0) / max(q1, q0)
    values = np.sort(y[(t == high) & seen])
    k = p * len(values)
    low, top = values[: len(values) - round(k)].mean(), values[round(k) :].mean()
    other = y[(t != high) & seen].mean()
    return (low - other, top - other) if high else (other - top, other - low)


@pytest.mark.parametrize("direction", [1, 0])
def test_bounds_are_trimmed_means_in_either_direction(direction):
    y, t, _ = trial(direction=direction)
    found = lee_bounds(y, t)
    lower, upper = by_hand(y, t)
    assert found.trimmed_arm == ("treated" if direction else "control")
    np.testing.assert_allclose([found.lower, found.upper], [lower, upper], atol=0.003)  # a part of a unit is trimmed
    assert found.lower < 1 < found.upper


def test_equal_response_is_the_difference_in_means_with_its_error():
    rng = np.random.default_rng(0)
    t = np.tile([0, 1], 200)
    y = t + rng.standard_normal(400)
    y[:40] = np.nan
    found = lee_bounds(y, t)
    a, b = (y[(t == arm) & ~np.isnan(y)] for arm in (1, 0))
    assert found.trimmed_arm == "none"
    np.testing.assert_allclose([found.lower, found.upper], a.mean() - b.mean())
    sides = []
    for sign in (1.0, -1.0):  # the trimmed share is estimated, even where it is zero
        edge = a.max() if sign > 0 else a.min()
        share = 0.9 * 0.1 / 200 / 0.9**2 * 2
        sides.append(np.sqrt(a.var() / len(a) + b.var() / len(b) + (a.mean() - edge) ** 2 * share))
    np.testing.assert_allclose([found.lower_se, found.upper_se], sides, rtol=0.01)


def test_swapping_arms_and_signs_mirrors_the_bounds():
    y, t, _ = trial(seed=1)
    found, swapped, minus = lee_bounds(y, t), lee_bounds(y, 1 - t), lee_bounds(-y, t)
    for other in (swapped, minus):
        np.testing.assert_allclose([other.lower, other.upper], [-found.upper, -found.lower])
        np.testing.assert_allclose([other.lower_se, other.upper_se], [found.upper_se, found.lower_se])


def test_duplicated_rows_are_weights_of_two_and_clusters_undo_the_duplication():
    y, t, _ = trial(n=400, seed=2)
    twice = np.tile(np.arange(400), 2)
    w = np.where(np.arange(400) < 150, 2.0, 1.0)
    rows = np.r_[np.arange(400), np.arange(150)]
    np.testing.assert_allclose(lee_bounds(y, t, weights=w).upper, lee_bounds(y[rows], t[rows]).upper)
    clustered = lee_bounds(y[twice], t[twice], groups=twice)
    np.testing.assert_allclose(clustered.lower_se, lee_bounds(y, t).lower_se)
    scaled = lee_bounds(1e6 * y + 1e6, t)
    np.testing.assert_allclose(scaled.upper, 1e6 * lee_bounds(y, t).upper, rtol=1e-8)


def test_ties_are_split():
    y = np.r_[np.zeros(40), np.ones(40), np.full(20, np.nan), np.zeros(30), np.ones(30), np.full(40, np.nan)]
    found = lee_bounds(y, np.repeat([1, 0], 100))
    np.testing.assert_allclose([found.lower, found.upper], [20 / 60 - 0.5, 40 / 60 - 0.5])


def test_cells_tighten_the_bounds_and_a_cell_without_outcomes_is_refused():
    """A covariate that tells which units the treatment made answer: the bounds meet."""
    y, t, _ = trial(n=4000, seed=3)
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 2, 4000)
    level = np.where(cell == 1, 5.0, 0.0)
    plain, fine = lee_bounds(y + level, t), lee_bounds(y + level, t, cells=cell)
    assert fine.upper - fine.lower < 0.6 * (plain.upper - plain.lower)
    assert fine.lower < 1 < fine.upper
    with pytest.raises(DataError, match="1 of 2 cells"):
        lee_bounds(np.where((cell == 1) & (t == 1), np.nan, y), t, cells=cell)


def test_interval_widens_with_the_level():
    assert imbens_manski(0, 1, 0.1, 0.2, 0.99)[0] < imbens_manski(0, 1, 0.1, 0.2, 0.9)[0]


@pytest.mark.statistical
@pytest.mark.parametrize("clusters", [None, 60])
def test_intervals_cover_and_standard_errors_are_those_of_the_simulation(clusters):
    draws = [lee_bounds(y, t, groups=g) for y, t, g in (trial(900, s, clusters) for s in range(200))]
    for side in ("lower", "upper"):
        spread = np.std([getattr(d, side) for d in draws])
        claimed = np.mean([getattr(d, f"{side}_se") for d in draws])
        assert 0.87 < claimed / spread < 1.16
    middle = np.mean([d.upper for d in draws])
    own = [d.upper - 1.645 * d.upper_se < middle < d.upper + 1.645 * d.upper_se for d in draws]
    assert 0.84 < np.mean(own) < 0.96
    assert np.mean([d.interval[0] < 1 < d.interval[1] for d in draws]) > 0.97
