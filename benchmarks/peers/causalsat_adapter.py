"""Ours: the recommended defaults; a logistic propensity where the data are observational."""

import numpy as np
from common import run

import causalsat


def fitted(model, trial):
    """Mean and 95 % interval of the new units' effects."""
    model.fit(trial["X"], trial["y"], treatment=trial["t"], groups=trial["groups"])
    post = model.effect(trial["new"])
    return post.mean(), *np.transpose(post.interval(0.95))


def propensity(trial):
    """Learner of the propensity."""
    return "logistic" if trial["observational"] else None


def stack(trial):
    """The default members, the robust one with the propensity."""
    robust = causalsat.DoublyRobustEffect(propensity_model=propensity(trial), random_state=trial["seed"])
    members = [("linear", causalsat.BayesianLinearEffect(random_state=trial["seed"])), ("robust", robust)]
    return causalsat.StackedEffect(members, propensity_model=propensity(trial), random_state=trial["seed"])


run(
    {
        "GaussianProcessEffect": lambda d: fitted(causalsat.GaussianProcessEffect(random_state=d["seed"]), d),
        "BayesianLinearEffect": lambda d: fitted(causalsat.BayesianLinearEffect(random_state=d["seed"]), d),
        "BayesianForestEffect": lambda d: fitted(
            causalsat.BayesianForestEffect(propensity_model=propensity(d), random_state=d["seed"]), d
        ),
        "DoublyRobustEffect": lambda d: fitted(
            causalsat.DoublyRobustEffect(propensity_model=propensity(d), random_state=d["seed"]), d
        ),
        "StackedEffect": lambda d: fitted(stack(d), d),
    },
    ["causalsat"],
)
