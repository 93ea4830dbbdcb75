"""The model in PyMC: the oracle of the fast densities, and what ``to_pymc`` returns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor
import pytest
from small_designs import EXACT, phis, small_design

import causalsat
from causalsat import BayesianLinearEffect
from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear import draws as linear_draws
from causalsat.estimators.linear import glm as linear_glm
from causalsat.estimators.linear import model as linear_model
from causalsat.estimators.linear.data import Scaling, sufficient_statistics
from causalsat.estimators.linear.draws import LinearFit
from causalsat.exceptions import DataError, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")
QUICK = {"n_draws": 50, "n_tune": 50, "n_chains": 1, "random_state": 0}


def model_of(design, layout, *, readable):
    """The model as the sampler compiles it (weights, products with the treatment) or as ``to_pymc`` returns it."""
    if not readable:
        return linear_model.build_model(layout, design.n_groups, linear_model.model_data(design, layout))
    modifiers = design.main[:, : layout.n_interactions]
    scaling = Scaling(np.zeros(0), np.ones(0), 0.0, 1.0, 0.4, 1.0)
    names = {
        "feature": range(layout.n_main),
        "modifier": range(layout.n_interactions),
        "stratum": range(design.n_strata),
    }
    return linear_model.readable_model(design, layout, scaling, modifiers, names)


def joint_of_pymc(design, layout, *, readable):
    """PyMC's log density as a function of (phi, raw coefficients, raw village effects), in phi's measure."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        model = model_of(design, layout, readable=readable)
        logp = model.compile_logp()
    a, k, g, j = layout.n_arms, layout.n_random, layout.n_common, layout.n_interactions
    in_logs = np.ones(layout.n_scales, dtype=bool)  # PyMC's coordinates are all logarithms
    in_logs[a:g] = False
    in_logs[:a] = layout.family != linear_density.NEGATIVE_BINOMIAL
    in_logs[g : g + 1] = layout.prior == linear_density.HORSESHOE

    def point(x):
        phi, rest = x[: layout.n_scales], x[layout.n_scales :]
        logs = np.where(in_logs, phi, np.log(np.abs(phi)))
        scales = {
            "noise_log__": logs[:a],
            "random_sd_log__": logs[a : a + k],
            "main_scale_log__": logs[a + k],
            "stratum_sd_log__": logs[a + k + 1 : g],
            "interaction_scale_log__": logs[g] - np.log(layout.global_scale),
            "slab_log__": logs[g + 1 : g + 2].sum(),
            "local_log__": logs[g + 2 :],
            "parts_log__": logs[g + 1 : g + 1 + j],
            "mixing_log__": logs[g + 1 + j :],
        }
        p, q, s = layout.n_main, layout.n_coefficients, layout.n_strata
        scale = linear_density.COEFFICIENT_SCALE * layout.unit
        raw = {
            "intercept": rest[0] * scale,
            "treatment": rest[1 + p] * scale,
            "main_raw": rest[1 : 1 + p],
            "interaction_raw": rest[2 + p : 2 + p + j],
            "stratum_raw": rest[2 + p + j : q].reshape(-1, s) if s else rest[:0],
            "random_raw": rest[q:].reshape(-1, k) if k else rest[q:],
        }
        names = {v.name for v in model.value_vars}
        return {name: np.asarray(v) for name, v in {**scales, **raw}.items() if name in names}

    def value(x):
        return float(logp(point(x))) - np.log(np.abs(x[: layout.n_scales][~in_logs])).sum()

    return value


@pytest.mark.parametrize(
    ("k", "prior", "strata", "family"),
    [
        (0, "normal", 0, "bernoulli"),
        (2, "horseshoe", 0, "bernoulli"),
        (1, "r2d2", 3, "negative_binomial"),
        (0, "normal", 3, "gamma"),
    ],
)
@pytest.mark.parametrize("readable", [False, True])
def test_other_families_equal_the_pymc_model(k, prior, strata, family, readable):
    design = small_design(k, strata=strata, family=family)
    if readable:
        design = replace(design, weight=np.ones(len(design.y)))
    layout = linear_density.make_layout(design, prior, family=family)
    args = linear_glm.arguments(layout, design)
    logp = joint_of_pymc(design, layout, readable=readable)
    size = layout.n_scales + layout.n_coefficients + design.n_groups * k
    points = np.random.default_rng(5).normal(0, 0.5, (3, size))
    prior_only = (*args[:-2], np.zeros(len(args[-1])), args[-1])  # coordinates in prior standard deviations
    fast = [linear_glm.glm_log_density(x, *prior_only)[0] for x in points]
    np.testing.assert_allclose(np.diff(fast), np.diff([logp(x) for x in points]), rtol=EXACT, atol=1e-8)


@pytest.mark.parametrize(
    ("k", "prior", "strata", "readable"),
    [(1, "normal", 0, False), (2, "horseshoe", 0, False), (1, "r2d2", 2, False), (2, "horseshoe", 2, True)],
)
def test_marginal_density_equals_the_pymc_model_integrated(k, prior, strata, readable):
    """PyMC's joint density is quadratic in the raw effects, so its integral follows from values at a few points."""
    design = small_design(k, n=40, p=2, j=2, strata=strata)
    if readable:
        design = replace(design, weight=np.ones(len(design.y)))
    layout = linear_density.make_layout(design, prior)
    args = linear_density.arguments(layout, sufficient_statistics(design))
    logp = joint_of_pymc(design, layout, readable=readable)
    d = layout.n_coefficients + design.n_groups * k
    eye = np.eye(d)

    def integrated(phi):
        f = lambda r: logp(np.r_[phi, r])  # noqa: E731
        zero = f(np.zeros(d))
        plus, minus = np.array([f(e) for e in eye]), np.array([f(-e) for e in eye])
        slope, curve = (plus - minus) / 2, plus + minus - 2 * zero
        hessian = np.diag(curve)
        for i in range(d):
            for j in range(i):
                hessian[i, j] = hessian[j, i] = f(eye[i] + eye[j]) - plus[i] - plus[j] + zero
        return zero + 0.5 * slope @ np.linalg.solve(-hessian, slope) - 0.5 * np.linalg.slogdet(-hessian)[1]

    fast = [linear_density.marginal_log_density(phi, *args)[0] for phi in phis(layout, 2)]
    np.testing.assert_allclose(np.diff(fast), np.diff([integrated(phi) for phi in phis(layout, 2)]), rtol=1e-6)


# ---------------------------------------------------------------------- to_pymc
def trial(family="gaussian", n=120, seed=0):
    rng = np.random.default_rng(seed)
    X, groups = rng.standard_normal((n, 3)), np.arange(n) % 30
    t = rng.integers(0, 2, n).astype(float)
    y = X[:, 0] + t * (1 + X[:, 1]) + 0.5 * rng.standard_normal(30)[groups] + rng.standard_normal(n)
    outcome = {
        "gaussian": 100.0 + 7.0 * y,
        "bernoulli": (y > 0.5).astype(float),
        "negative_binomial": rng.poisson(np.exp(0.3 * y)).astype(float),
        "gamma": np.exp(0.5 * y),
    }
    return X, outcome[family], t, groups


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "negative_binomial", "gamma"])
def test_the_average_effect_of_the_model_is_that_of_the_estimator(family):
    """The same values of all parameters, through PyMC's graph and through the estimator's draws."""
    X, y, t, groups = trial(family)
    est = BayesianLinearEffect(family=family, prior="normal", modifiers=[1, 2], ordered=[2, 0], **QUICK)
    est.fit(X, y, treatment=t, groups=groups)
    model, rng = est.to_pymc(), np.random.default_rng(1)
    values = {
        v.name: np.abs(rng.normal(0, 0.5, [len(model.coords[d]) for d in dims(model, v.name)]))
        for v in model.free_RVs
    }
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        evaluate = pytensor.function(model.free_RVs, model["ate"], on_unused_input="ignore")
    found = float(evaluate(*(values[v.name] for v in model.free_RVs)))
    scale = values["interaction_scale"] * est.layout_.global_scale
    coefficients = np.concatenate(
        [
            [values["intercept"]],
            values["main_raw"] * values["main_scale"],
            [values["treatment"]],
            values["interaction_raw"] * scale,
        ]
    )
    sd = values["random_sd"][None]
    noise = values.get("noise", np.zeros(0))[None]
    fit = LinearFit(coefficients[None], np.zeros((1, 0, 1)), noise, sd, np.zeros((1, 0)), 0)
    posterior = replace(est._posterior, draws=linear_draws.in_outcome_units(fit, est._posterior.basis))
    expected = linear_draws.average_effects(posterior, X, np.ones(len(X)))[0][0]
    assert found == pytest.approx(expected, rel=1e-10)


def dims(model, name):
    return model.named_vars_to_dims.get(name, ())


def test_effects_of_the_model_are_in_the_outcomes_units():
    """Standardised slopes by hand; their mean is the model's average effect."""
    X, y, t, _ = trial()
    dose, shifted = t * 3 + X[:, 2], X * [1.0, 5.0, 1.0] + 2
    for treatment, modifiers in ((t, [1, 2]), (dose, [1])):
        est = BayesianLinearEffect(prior="normal", modifiers=modifiers, **QUICK).fit(shifted, y, treatment=treatment)
        model = est.to_pymc(effects=True)
        given = {model["treatment"]: 0.5, model["interaction_effects"]: np.array([0.2, -0.1])[: len(modifiers)]}
        with pytensor.config.change_flags(mode="FAST_COMPILE"):
            effect, ate = (model[name].eval(given, on_unused_input="ignore") for name in ("effect", "ate"))
        z = ((shifted - shifted.mean(axis=0)) / shifted.std(axis=0))[:, modifiers]
        unit = y.std() / (1.0 if treatment is t else 2 * dose.std())
        np.testing.assert_allclose(effect, unit * (0.5 + z @ given[model["interaction_effects"]]), rtol=1e-10)
        assert ate == pytest.approx(effect.mean(), rel=1e-10)
    with pytest.raises(ParameterError, match="normal outcomes"):
        est.set_params(family="gamma").to_pymc(effects=True)


def test_the_model_has_names_data_and_an_observed_outcome():
    X, y, t, groups = trial()
    est = BayesianLinearEffect(modifiers=[1], **QUICK).fit(X, y, treatment=t, groups=groups)
    model = est.to_pymc()
    assert dims(model, "main_effects") == ("feature",)
    assert model.coords["feature"] == ("x0", "x1", "x2")
    assert model.coords["modifier"] == ("x1",)
    assert len(model.coords["village"]) == 30
    assert model.coords["village_effect"] == ("intercept", "treatment")  # all villages hold both arms
    assert [v.name for v in model.observed_RVs] == ["outcome"]
    assert pm.draw(model["outcome"], random_seed=0).shape == (120,)
    weighted = est.fit(X, y, treatment=t, groups=groups, sample_weight=np.linspace(0.5, 1.5, 120)).to_pymc()
    assert [v.name for v in weighted.potentials] == ["outcome"]


def test_a_copy_holds_no_data_and_an_imputed_fit_no_single_model(tmp_path):
    X, y, t, _ = trial()
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t)
    est.save(tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="holds no training data"):
        causalsat.load(tmp_path / "model.safetensors").to_pymc()
    X[:20, 0] = np.nan
    est = BayesianLinearEffect(impute="model", n_imputations=2, **QUICK).fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match="impute='mean'"):
        est.to_pymc()


@pytest.mark.slow
def test_pymc_samples_the_posterior_of_the_fit():
    import nutpie

    X, y, t, groups = trial(n=300)
    est = BayesianLinearEffect(prior="normal", random_state=0).fit(X, y, treatment=t, groups=groups)
    trace = nutpie.sample(
        nutpie.compile_pymc_model(est.to_pymc()), draws=400, tune=300, chains=2, seed=0, progress_bar=False
    )
    ate = np.ravel(trace.posterior["ate"])
    assert abs(ate.mean() - est.draws_["ate"].mean()) < 0.2 * ate.std()
    assert ate.std() == pytest.approx(est.draws_["ate"].std(), rel=0.15)
