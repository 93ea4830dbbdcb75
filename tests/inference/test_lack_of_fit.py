"""What a linear effect leaves out: sizes against known truths, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import DoublyRobustEffect, TLearnerEffect
from causalsat.exceptions import ParameterError
from causalsat.inference.lack_of_fit import lack_of_fit


def found(curve=0.0, n=3000, noise=1.0, spread=0.0, groups=None, seed=0, **more):
    """Draws for scores with the effect x + curve (x^2 - 1) and noise that may grow with x."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    design = np.column_stack([np.ones(n), x])
    scores = x + curve * (x**2 - 1) + (noise + spread * x**2) * rng.standard_normal(n)
    fitted = design @ np.linalg.lstsq(design, scores, rcond=None)[0]
    settings = {"effect_sd": 1.0, "ratio": 0.2, "n_draws": 800, "rng": rng} | more
    return lack_of_fit(scores, fitted, design, np.ones(n), groups, **settings), design


@pytest.mark.parametrize(("curve", "least", "most"), [(0.0, 0.0, 0.12), (0.4, 0.35, 1.2)])
def test_sd_of_what_is_left_out_is_learnt(curve, least, most):
    left, _ = found(curve)  # the true one is sqrt(2) times the curve
    assert least <= left.sd < most


def test_noise_that_grows_with_the_modifier_is_no_lack_of_fit():
    left, _ = found(noise=0.5, spread=1.0)
    assert left.sd < 0.25


def test_draws_are_orthogonal_to_the_design_over_the_trial_and_have_mean_zero():
    left, design = found(0.4)
    draws = left.draws(design)
    np.testing.assert_allclose(draws @ design / len(design), 0, atol=1e-10)
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=1e-10)
    rms = np.sqrt(np.mean(draws**2))
    assert 0.85 < rms / left.sd < 1.3


def test_draws_grow_away_from_the_trial_and_are_shared_by_near_places():
    left, _ = found(0.4)
    near, far, beside = left.draws(np.array([[1.0, 0.0], [1.0, 4.0], [1.0, 4.1]])).T
    assert far.std() > 2 * near.std()
    assert np.corrcoef(far, beside)[0, 1] > 0.98


@pytest.mark.parametrize("settings", [{"effect_sd": 0.0}, {"ratio": 0.0}])
def test_nothing_is_left_out_where_no_effect_varies(settings):
    assert found(**settings)[0] is None


def test_a_repeated_cluster_counts_once():
    rng = np.random.default_rng(1)
    x = np.repeat(rng.standard_normal(60), 20)
    noise = np.repeat(rng.standard_normal(60), 20)
    design, groups = np.column_stack([np.ones(1200), x]), np.repeat(np.arange(60), 20)
    left = [
        lack_of_fit(noise[k], 0 * x[k], design[k], np.ones(1200)[k], g, effect_sd=1.0, ratio=0.2, n_draws=10, rng=rng)
        for k, g in ((slice(None), groups), (slice(None, None, 20), np.arange(60)))
        for rng in [np.random.default_rng(3)]
    ]
    assert left[0].sd == pytest.approx(left[1].sd, rel=1e-6)


def trial(seed=0, n=600):
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n, 3)), rng.permutation(n) % 2
    return X, X[:, 1] + t * (1 + X[:, 0] + 0.5 * X[:, 2] ** 2) + rng.standard_normal(n), t


@pytest.mark.parametrize("make", [DoublyRobustEffect, lambda **k: TLearnerEffect(n_bootstrap=40, **k)])
def test_predictions_stay_and_intervals_widen(make):
    X, y, t = trial()
    on, off = (make(lack_of_fit=ratio).fit(X, y, treatment=t) for ratio in (0.2, 0))
    assert off.lack_of_fit_ is None
    np.testing.assert_allclose(on.predict(3 * X), off.predict(3 * X), atol=1e-9)
    np.testing.assert_allclose(on.effect(X).ate().sd(), off.effect(X).ate().sd(), rtol=1e-6)
    assert np.mean(on.effect(3 * X).sd() / off.effect(3 * X).sd()) > 1.1


@pytest.mark.parametrize("ratio", [-0.1, True, "much", np.inf])
def test_refuses_what_is_no_ratio(ratio):
    X, y, t = trial(n=60)
    with pytest.raises(ParameterError, match="lack_of_fit"):
        DoublyRobustEffect(lack_of_fit=ratio).fit(X, y, treatment=t)


@pytest.mark.statistical
def test_covers_bent_effects_better_and_linear_ones_no_worse():
    covered = {}
    for bend in (0.0, 0.4):
        for ratio in (0.0, 0.2):
            hits = []
            for seed in range(25):
                rng = np.random.default_rng([seed, 7])
                X, t = rng.standard_normal((300, 3)), rng.permutation(300) % 2
                tau = 1 + 0.5 * X[:, 0] + bend * (X[:, 1] ** 2 - 1)
                y = X[:, 1] + t * tau + rng.standard_normal(300)
                lower, upper = DoublyRobustEffect(lack_of_fit=ratio).fit(X, y, treatment=t).effect(X).interval(0.9).T
                hits.append(np.mean((lower < tau) & (tau < upper)))
            covered[bend, ratio] = np.mean(hits)
    assert 0.84 < covered[0.0, 0.2] < 0.97
    assert covered[0.4, 0.2] > covered[0.4, 0.0] + 0.05
