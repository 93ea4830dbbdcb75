"""Coverage of BayesianLinearEffect's intervals over simulated cluster-randomised trials."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import BayesianLinearEffect

pytestmark = [
    pytest.mark.statistical,
    pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning"),
]

N_TRIALS, N_GROUPS, SIZE, J = 100, 40, 5, 3


def one_trial(rng):
    """Effects from the prior's kind of world: interactions normal with sd 0.3, villages, unequal noise."""
    groups = np.repeat(np.arange(N_GROUPS), SIZE)
    t = rng.permutation(np.arange(N_GROUPS) % 2)[groups].astype(float)
    M = rng.standard_normal((N_GROUPS, J))
    beta, ate = 0.3 * rng.standard_normal(J), rng.standard_normal()
    noise = rng.standard_normal(len(t)) * (0.7 + 0.5 * t)
    y = 0.3 * M[groups, 0] + t * (ate + M[groups] @ beta) + 0.3 * rng.standard_normal(N_GROUPS)[groups] + noise
    new = rng.standard_normal((50, J))
    return M[groups], y, t, groups, new, ate + new @ beta, ate + (M[groups] @ beta).mean()


@pytest.fixture(scope="module")
def covered():
    """Share of units, and whether the ATE, inside 50 and 90 % intervals, by trial."""
    rng = np.random.default_rng(20)
    rows = []
    for trial in range(N_TRIALS):
        X, y, t, groups, new, tau, ate = one_trial(rng)
        est = BayesianLinearEffect(n_draws=120, n_tune=120, n_chains=2, random_state=trial)
        est.fit(X, y, treatment=t, groups=groups)
        post, average = est.effect(new), est.effect(X).ate()
        row = []
        for level in (0.5, 0.9):
            lower, upper = post.interval(level).T
            row.append(((lower < tau) & (tau < upper)).mean())
            lower, upper = average.interval(level)[0]
            row.append(float(lower < ate < upper))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("column", "level"), [(0, 0.5), (1, 0.5), (2, 0.9), (3, 0.9)])
def test_intervals_cover(covered, column, level):
    shares = covered[:, column]
    error = max(shares.std(ddof=1), 0.1) / np.sqrt(N_TRIALS)
    # three standard errors of the simulation, and 0.02 because the prior is not the law of these trials
    assert abs(shares.mean() - level) < 3 * error + 0.02
