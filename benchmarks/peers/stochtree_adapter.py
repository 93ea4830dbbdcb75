"""Stochtree's BCFModel called directly: its default priors, 10 grow-from-root, 200 burn-in, 500 kept iterations."""

import numpy as np
from common import from_draws, run
from stochtree import BCFModel


def bcf(trial):
    """Draws of the effects of the new units."""
    more = {}
    if trial["groups"] is not None:
        more = {"rfx_group_ids_train": trial["groups"], "random_effects_params": {"model_spec": "intercept_only"}}
    covariate = "prognostic" if trial["observational"] else "none"
    model = BCFModel()
    model.sample(
        X_train=trial["X"],
        Z_train=trial["t"],
        y_train=trial["y"],
        num_gfr=10,
        num_burnin=200,
        num_mcmc=500,
        general_params={"random_seed": trial["seed"] + 1, "propensity_covariate": covariate, "num_threads": 1},
        **more,
    )
    new = trial["new"]
    known = {} if trial["groups"] is None else {"rfx_group_ids": np.full(len(new), trial["groups"][0])}  # demanded
    draws = model.predict(X=new, Z=np.ones((len(new), 1)), terms="tau", type="posterior", **known)
    return from_draws(np.asarray(draws).reshape(len(new), -1).T)


run({"stochtree BCF": bcf}, ["stochtree"])
