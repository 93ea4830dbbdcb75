"""The best case: maximum likelihood where the functions that made the data are known, and the confounder is not.

The treatment's logit and the effect are linear in X, the outcome too but for the three bent terms of
causalsat.simulate.hidden_confounding, which are given (that X_1 enters the outcome as a square, and so on); every
covariate may move all three, so that none is excluded from the outcome. The noise is known to be normal, nothing is
shrunk. The likelihood is exact (quadrature over the confounder); the three strengths of the confounder's links are
maximised over from several starts. What this does not close of the gap, the data hardly hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

from causalsat.estimators.vluci.fit import NO_LINK, Design, Mode, fit_mode
from causalsat.estimators.vluci.likelihood import Link

STARTS = ((0.0, 0.5, 0.5), (0.7, 1.2, 1.2), (0.7, -0.8, -0.8))
LIMIT = np.array([2.0, 3.0, 3.0])  # log of the link, atanh of the shares


def true_design(X: Any, t: Any, y: Any) -> Design:
    """The simulated worlds' own columns."""
    one, n = np.ones(len(t)), len(t)
    effect = logit = np.column_stack([one, X])
    columns = np.column_stack([logit, X[:, 1] ** 2, np.sin(2 * X[:, 2]), X[:, 3] * X[:, 4], t[:, None] * effect])
    free = np.full(logit.shape[1] + columns.shape[1], -1)
    return Design(logit, columns, effect, t, y, np.ones(n), free, (True, False))


def reference_fit(X: Any, t: Any, y: Any) -> tuple[float, float]:
    """Average effect at the maximum of the likelihood, and twice the log-likelihood's gain over no confounding."""
    scale = float(y.std())
    design = true_design(X, t, (y - y.mean()) / scale)
    none = fit_mode(design, NO_LINK, rounds=1)
    best: tuple[float, Mode] = (_height(none), none)
    for begin in STARTS:
        near = [none]

        def loss(strength: Any, near: list[Mode] = near) -> float:
            b, a0, a1 = np.clip(strength, -LIMIT, LIMIT)
            near[0] = fit_mode(design, Link(float(np.exp(b)), (float(np.tanh(a0)), float(np.tanh(a1)))), near[0], 1)
            return -_height(near[0])

        found = minimize(loss, begin, method="Nelder-Mead", options={"xatol": 0.01, "fatol": 0.01, "maxfev": 120})
        loss(found.x)
        best = max(best, (_height(near[0]), near[0]), key=lambda pair: pair[0])
    return best[1].ate * scale, 2 * (best[0] - _height(none))


def _height(mode: Mode) -> float:
    """Log posterior density at the mode, which under the flat prior is the log-likelihood but for a constant."""
    k = len(mode.z) - 2
    constant = -0.5 * k * np.log(25.0) - np.log(4.0)
    return mode.evidence - constant + float(np.log(np.diag(np.linalg.cholesky(mode.hessian))).sum())
