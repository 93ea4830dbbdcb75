"""CausalML's X-learner with LightGBM; percentiles of 30 bootstraps (it has intervals for the units fitted only)."""

import numpy as np
from causalml.inference.meta import BaseXRegressor
from common import run
from lightgbm import LGBMRegressor
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

N_BOOTSTRAP = 30


def x_learner(trial):
    """The estimate, and percentiles of refits to units (or clusters) drawn with replacement."""
    rng = np.random.default_rng(trial["seed"])
    groups = np.arange(len(trial["y"])) if trial["groups"] is None else trial["groups"]
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    learner = LogisticRegression(max_iter=1000) if trial["observational"] else DummyClassifier(strategy="prior")
    propensity = learner.fit(trial["X"], trial["t"])

    def effects(rows):
        model = BaseXRegressor(learner=LGBMRegressor(n_jobs=1, verbose=-1, random_state=trial["seed"]))
        p, p_new = (propensity.predict_proba(table)[:, 1] for table in (trial["X"][rows], trial["new"]))
        model.fit(trial["X"][rows], trial["t"][rows].astype(int), trial["y"][rows], p=p)
        return np.ravel(model.predict(trial["new"], p=p_new))

    drawn = [
        np.concatenate([members[j] for j in rng.integers(len(members), size=len(members))])
        for _ in range(N_BOOTSTRAP)
    ]
    draws = np.array([effects(rows) for rows in drawn])
    return effects(np.arange(len(trial["y"]))), *np.quantile(draws, [0.025, 0.975], axis=0)


run({"CausalML X-learner (LightGBM)": x_learner}, ["causalml", "lightgbm"])
