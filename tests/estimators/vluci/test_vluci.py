"""VLUCI finds a confounder that nobody measured where shapes identify it, and says so where they do not."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import VLUCI, BayesianLinearEffect, DoublyRobustEffect, RandomConvFeatures
from causalsat.estimators.vluci.report import design_effect, report
from causalsat.exceptions import DataError, DataWarning, ParameterError, TreatmentError
from causalsat.simulate import hidden_confounding

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")

QUICK = {"n_imputations": 6, "n_grid": 5, "n_draws": 600}


def robust():
    return DoublyRobustEffect(propensity_model="logistic")


def world(**options):
    return hidden_confounding(**{"n": 1500, "observed": 2.0, "n_features": 5, "seed": 0, **options})


def fit(w, base=None, **options):
    model = VLUCI(robust() if base is None else base, **{**QUICK, **options})
    return model.fit(w.X, w.outcome, treatment=w.treatment)


@cache
def strong():
    w = world(strength=2.0)
    return w, fit(w)


def covers(interval, value):
    return interval[0] <= value <= interval[1]


# ---------------------------------------------------------------------- what it is for
def test_average_effect_is_found_where_x_alone_is_far_off():
    w, model = strong()
    naive = robust().fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    ate = model.effect(w.X).ate()
    truth = w.tau.mean()
    assert abs(float(naive) - truth) > 2
    assert not covers(naive.interval(0.9)[0], truth)
    assert abs(float(ate) - truth) < 0.3 * abs(float(naive) - truth)
    assert covers(ate.interval(0.9)[0], truth)
    assert model.probability_ > 0.9


def test_inferred_confounder_is_the_true_one_and_independent_of_x():
    w, model = strong()
    draws = model.infer_confounders(w.X, w.outcome, w.treatment)
    assert draws.shape == (6, 1500, 1)
    L = w.confounder[:, 0]
    assert np.corrcoef(draws.mean(axis=0)[:, 0], L)[0, 1] ** 2 > 0.6
    assert np.corrcoef(draws.mean(axis=0)[:, 0], L)[0, 1] > 0  # towards treatment
    assert model.report_.known[0] > 0.5
    assert abs(model.report_.x_r2[0]) < 0.03
    assert model.report_.mean[0] == pytest.approx(0, abs=0.15)
    assert model.report_.sd[0] == pytest.approx(1, abs=0.15)
    assert model.report_.notes == ()
    more = model.infer_confounders(w.X[:5], w.outcome[:5], w.treatment[:5], n_draws=9)
    assert more.shape == (9, 5, 1)


def test_counterfactuals_know_more_of_a_unit_than_its_covariates():
    w, model = strong()
    own = model.counterfactual(w.X, w.outcome, w.treatment)
    new = model.effect(w.X)
    error = [np.sqrt(np.mean((post.mean() - w.tau) ** 2)) for post in (own, new)]
    apart = [np.std(post.mean() - w.tau) for post in (own, new)]  # from unit to unit, whatever the average is
    assert apart[0] < 0.95 * apart[1]
    assert np.corrcoef(own.mean() - new.mean(), w.confounder[:, 0])[0, 1] > 0.5
    missing = w.outcome + np.where(w.treatment == 1, -w.tau, w.tau)  # the same noise in the other arm
    other = model.counterfactual_outcome(w.X, w.outcome, w.treatment, level=1 - w.treatment)
    assert np.sqrt(np.mean((other.mean() - missing) ** 2)) == pytest.approx(error[0], rel=1e-6)
    same = model.counterfactual_outcome(w.X, w.outcome, w.treatment, level=w.treatment)
    np.testing.assert_allclose(same.draws, np.broadcast_to(w.outcome, same.draws.shape))
    assert other.kind == "outcome"


def test_noise_of_the_other_outcome_is_shared_or_drawn_anew():
    """Realised counterfactuals with noise of their own are covered where it is drawn anew, not where it is shared."""
    w, model = strong()
    args, other = (w.X, w.outcome, w.treatment), 1 - w.treatment
    noise = np.random.default_rng(3).standard_normal(len(w.X))
    own_noise = w.outcome - outcome_without_noise(w, w.treatment)
    assert own_noise.std() == pytest.approx(1, abs=0.1)
    realised = outcome_without_noise(w, other) + noise
    covered = {}
    for kind in ("shared", "independent"):
        post = model.counterfactual_outcome(*args, level=other, noise=kind)
        low, high = post.interval(0.9).T
        covered[kind] = np.mean((low <= realised) & (realised <= high))
    assert 0.8 < covered["independent"] < 0.98
    assert covered["shared"] < 0.75
    same = model.counterfactual_outcome(*args, level=w.treatment, noise="independent")
    np.testing.assert_allclose(same.draws, np.broadcast_to(w.outcome, same.draws.shape))
    with pytest.raises(ParameterError, match="noise"):
        model.counterfactual_outcome(*args, noise="own")
    with pytest.raises(ParameterError, match="ruled"):
        fit(w, prior_confounding=0.0, n_imputations=1).counterfactual_outcome(*args, noise="independent")


def outcome_without_noise(w, t):
    """What hidden_confounding writes down, without e."""
    X, L = w.X, w.confounder[:, 0]
    g = X[:, 0] + X[:, 1] ** 2 / 2 + np.sin(2 * X[:, 2]) + X[:, 3] * X[:, 4] / 2
    return g + t * w.tau + 2.0 * L


def test_without_a_confounder_the_prior_shrinks_and_the_interval_holds_the_truth():
    """The errors stay below those of a model that must find a confounder, in four studies that have none."""
    studies = [world(strength=0.0, seed=seed, n=1000) for seed in range(4)]
    models = [fit(w) for w in studies]
    forced = [fit(w, prior_confounding=1.0) for w in studies]
    truths = np.array([w.tau.mean() for w in studies])
    error, worse = (np.abs([float(m.ate_draws_.mean()) for m in found] - truths).mean() for found in (models, forced))
    assert error < 0.75 * worse
    assert np.mean([m.probability_ for m in models]) < 0.6
    held = [covers(np.quantile(m.ate_draws_, [0.05, 0.95]), v) for m, v in zip(models, truths, strict=True)]
    assert sum(held) >= 3


def test_in_a_randomised_trial_the_confounder_does_not_predict_treatment():
    """L moves the outcome and not the treatment: the estimate is the trial's, and L tells nothing of T."""
    w = world(strength=2.0, randomised=True, seed=1)
    model = fit(w)
    naive = robust().fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    assert model.report_.treatment_r2[0] < 0.05
    assert abs(float(model.effect(w.X).ate()) - float(naive)) < 0.35
    assert covers(model.effect(w.X).ate().interval(0.9)[0], w.tau.mean())


def test_a_known_design_rules_confounding_out():
    w = world(strength=2.0, randomised=True, seed=1)
    model = VLUCI(DoublyRobustEffect(), **QUICK).fit(w.X, w.outcome, treatment=w.treatment, propensity=0.5)
    assert model.probability_ == 0
    assert model.report_.treatment_r2[0] < 0.01
    assert model.report_.known[0] < 0.1


def test_prior_probability_zero_is_the_base_alone():
    w, _ = strong()
    model = fit(w, prior_confounding=0.0)
    naive = robust().fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    assert float(model.effect(w.X).ate()) == pytest.approx(float(naive), abs=0.1)


# ---------------------------------------------------------------------- doses and binary outcomes
def test_a_dose_is_not_identified_and_the_interval_says_so():
    w = world(strength=1.0, treatment="dose", observed=1.0, n=600)
    base = BayesianLinearEffect(n_draws=80, n_tune=80, n_chains=2, random_state=0)
    model = fit(w, base)
    naive = base.fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    ate = model.effect(w.X).ate()
    assert np.isnan(model.probability_)
    assert np.ptp(ate.interval(0.9)[0]) > 4 * np.ptp(naive.interval(0.9)[0])
    assert covers(ate.interval(0.9)[0], w.tau.mean())
    assert not covers(naive.interval(0.9)[0], w.tau.mean())
    assert "not identified" in str(model.summary())
    region = model.likelihood_region(0.9)  # of every strength
    assert region.none
    assert region.lower < w.tau.mean() < float(naive) < region.upper
    with pytest.raises(TreatmentError, match="dose"):
        fit(w, robust())


def test_binary_outcome_is_found_and_the_interval_holds_the_truth():
    w = world(strength=2.0, outcome="binary", n=2000)
    model = fit(w)
    assert model.binary_outcome_
    ate = model.effect(w.X).ate()
    naive = robust().fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    assert covers(ate.interval(0.9)[0], w.tau.mean())
    assert not covers(naive.interval(0.9)[0], w.tau.mean())
    assert not fit(w, outcome="continuous", prior_confounding=0.0).binary_outcome_


# ---------------------------------------------------------------------- networks
@pytest.mark.slow
def test_networks_train_repeat_themselves_and_save(tmp_path):
    w = world(strength=2.0, n=1000)
    options = {"inference": "variational", "n_networks": 1, "max_epochs": 60, "n_latents": 2, "device": "cpu"}
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    model = fit(w, **options)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert model.latents_.shape == (6, 1000, 2)
    assert np.isnan(model.probability_)
    assert (np.abs(model.report_.x_r2) < 0.15).all()
    assert 0.5 < model.report_.sd.max() < 2
    model.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    args = w.X, w.outcome, w.treatment
    np.testing.assert_array_equal(again.infer_confounders(*args), model.infer_confounders(*args))
    np.testing.assert_array_equal(fit(w, **options).latents_, model.latents_)
    with pytest.raises(ParameterError, match="networks"):
        model.strength_curve()


def test_collapse_and_leak_and_dependence_are_reported():
    rng = np.random.default_rng(0)
    n, X = 2000, rng.standard_normal((2000, 2))
    t = (rng.random(n) < 0.5).astype(float)
    signal = rng.standard_normal(n)
    draws = np.empty((8, n, 4))
    draws[:, :, 0] = rng.standard_normal((8, n))  # the prior: collapsed
    draws[:, :, 1] = 2 * t - 1 + 0.2 * rng.standard_normal((8, n))  # the treatment itself
    draws[:, :, 2] = 0.8 * X[:, 0] + 0.6 * signal  # in part the covariate
    draws[:, :, 3] = 0.8 * signal + 0.6 * rng.standard_normal((8, n))  # as it should be
    said = report(draws, X, t, np.ones(n))
    assert said.known == pytest.approx([0, 0.96, 1, 0.64], abs=0.03)
    assert said.treatment_r2 == pytest.approx([0, 0.96, 0, 0], abs=0.03)
    assert said.x_r2 == pytest.approx([0, 0, 0.64, 0], abs=0.04)
    assert len(said.notes) == 3
    assert "0 has collapsed" in said.notes[0]
    assert "leaked into latent 1" in said.notes[1]
    assert "2 depends on X" in said.notes[2]


# ---------------------------------------------------------------------- checks of the assumptions
def test_sensitivity_curve_falls_from_no_confounding_towards_the_truth():
    w, model = strong()
    curve = model.strength_curve()
    one = curve[curve["link"] == curve["link"].max()].sort_values("share")
    assert (np.diff(one["ate"]) < 0).all()
    likeliest = curve.loc[curve["evidence"].idxmax()]
    assert abs(likeliest["ate"] - w.tau.mean()) < 0.6
    assert likeliest["share"] > 0.4
    assert (curve["lower"] < curve["upper"]).all()


def test_sensitivity_refits_and_says_how_the_average_moves():
    w, model = strong()
    table = model.sensitivity(
        w.X, w.outcome, treatment=w.treatment, link_scales=(0.5,), prior_confounding=(0.0,), n_latents=()
    )
    assert list(table.index) == ["as fitted", "link scale 0.5", "prior of confounding 0"]
    assert table.loc["as fitted", "ate"] == pytest.approx(float(model.effect(w.X).ate()), abs=1e-9)
    assert table.loc["prior of confounding 0", "ate"] > 3
    assert table.loc["prior of confounding 0", "probability"] == 0
    assert table.loc["link scale 0.5", "ate"] < 3


def test_the_likelihood_region_needs_no_prior_of_the_strength():
    w, model = strong()
    region, wide = model.likelihood_region(0.9), model.likelihood_region(0.99)
    assert wide.lower < region.lower < w.tau.mean() < region.upper < wide.upper
    naive = robust().fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate()
    assert region.upper < float(naive)
    assert not region.none
    again = fit(w, prior_confounding=0.9, n_imputations=1).likelihood_region(0.9)
    assert (again.lower, again.upper) == pytest.approx((region.lower, region.upper))
    found = model.likelihood_region(0.95)
    assert f"{found.lower:.3f} to {found.upper:.3f}" in str(model.summary())
    with pytest.raises(ParameterError, match="level"):
        model.likelihood_region(90)
    with pytest.raises(ParameterError, match="ruled"):
        fit(w, prior_confounding=0.0, n_imputations=1).likelihood_region()


def test_negative_control_and_placebo_show_no_effect():
    """An outcome that L moves and the treatment does not; treatments dealt out at random."""
    w = world(strength=2.0, seed=2)
    rng = np.random.default_rng(0)
    control = w.X[:, 0] + 2 * w.confounder[:, 0] + rng.standard_normal(len(w.X))
    model = VLUCI(robust(), **QUICK)
    table = model.negative_control(w.X, control, treatment=w.treatment)
    assert table.loc["X only", "lower"] > 1
    assert table.loc["with unobserved confounder", "lower"] < 0.3
    assert abs(table.loc["with unobserved confounder", "ate"]) < 0.5 * table.loc["X only", "ate"]
    dealt = model.placebo(w.X, w.outcome, treatment=w.treatment, n_repeats=1)
    assert covers(dealt.loc["placebo 0", ["lower", "upper"]].to_numpy(), 0)
    assert dealt.loc["placebo 0", "treatment_r2"] < 0.1


def test_sensitivity_to_the_dimension_of_the_confounder_refits_the_networks():
    """The row is what networks with that many latents say: a part of the strong confounding, on the right side."""
    w = world(strength=2.0, n=300)
    quick = {"n_networks": 1, "n_imputations": 2, "max_epochs": 60, "warmup": 5, "hidden": 16, "device": "cpu"}
    naive = float(robust().fit(w.X, w.outcome, treatment=w.treatment).effect(w.X).ate())
    model = fit(w, prior_confounding=0.0, n_grid=3, **quick)
    table = model.sensitivity(
        w.X, w.outcome, treatment=w.treatment, link_scales=(), prior_confounding=(), n_latents=(3,)
    )
    assert list(table.index) == ["as fitted", "networks, 3 latent(s)"]
    again = fit(w, inference="variational", n_latents=3, prior_confounding=0.0, n_grid=3, **quick)
    assert again.latents_.shape == (2, 300, 3)
    networks = table.loc["networks, 3 latent(s)"]
    assert networks["ate"] == pytest.approx(float(again.ate_draws_.mean()), abs=1e-9)
    assert table.loc["as fitted", "probability"] == 0
    assert table.loc["as fitted", "ate"] == pytest.approx(naive, abs=0.3)  # L is noise there, a column of 300 units
    assert np.isnan(networks["probability"])
    assert networks["lower"] < networks["ate"] < networks["upper"]
    assert networks["ate"] < naive - 0.1  # towards the truth, which lies below


# ---------------------------------------------------------------------- images
def test_chips_through_a_frozen_encoder_find_the_confounder_that_pixels_do_not_show(tmp_path):
    """The observed covariates are in the pixels only, the confounder nowhere: found as it is from a table."""
    w = world(strength=2.0)
    rng = np.random.default_rng(0)
    pixels = w.X[:, :, None, None] + 0.3 * rng.standard_normal((*w.X.shape, 6, 6))
    chips = xr.DataArray(pixels.astype(np.float32), dims=("unit", "band", "y", "x"))
    encoder = make_pipeline(RandomConvFeatures(n_features=64, random_state=0), PCA(5, random_state=0))
    model = VLUCI(robust(), encoder=encoder, **QUICK).fit(chips, w.outcome, treatment=w.treatment)
    latents, truth = model.encoder_.transform(chips), w.tau.mean()
    naive = float(robust().fit(latents, w.outcome, treatment=w.treatment).effect(latents).ate())
    ate = model.effect(chips).ate()
    assert naive - truth > 2
    assert abs(float(ate) - truth) < 0.3 * (naive - truth)
    assert covers(ate.interval(0.9)[0], truth)
    inferred = model.infer_confounders(chips, w.outcome, w.treatment).mean(axis=0)[:, 0]
    assert np.corrcoef(inferred, w.confounder[:, 0])[0, 1] > 0.75
    own = model.counterfactual(chips[:50], w.outcome[:50], w.treatment[:50])
    assert own.draws.shape[1] == 50
    assert (model.support(chips[:5]) > 0).all()
    model.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(again.effect(chips[:20]).draws, model.effect(chips[:20]).draws)
    plain = VLUCI(robust(), **QUICK)
    with pytest.raises(DataError, match="encode chips first"):
        plain.fit(chips, w.outcome, treatment=w.treatment)
    with pytest.raises(ParameterError, match="encoder"):
        plain.set_params(encoder=PCA).fit(chips, w.outcome, treatment=w.treatment)


# ---------------------------------------------------------------------- forms, files, errors
def test_saved_model_gives_the_same_confounders_and_counterfactuals(tmp_path):
    w, model = strong()
    model.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    args = w.X[:50], w.outcome[:50], w.treatment[:50]
    np.testing.assert_array_equal(again.infer_confounders(*args), model.infer_confounders(*args))
    np.testing.assert_array_equal(again.counterfactual(*args).draws, model.counterfactual(*args).draws)
    pd.testing.assert_frame_equal(again.strength_curve(), model.strength_curve())


def test_a_base_sees_names_and_missing_values():
    w = world(n=400, strength=1.0)
    table = pd.DataFrame(w.X, columns=list("abcde"))
    table.loc[::9, "b"] = np.nan
    base = BayesianLinearEffect(modifiers=["a", "unobserved*"], n_draws=60, n_tune=60, n_chains=1, random_state=0)
    model = fit(type(w)(table, w.treatment, w.outcome, w.confounder, w.tau, w.tau_x, w.link), base)
    assert model.members_[0].design_names_ == ("a", "b", "c", "d", "e", "unobserved 0", "b missing")
    assert model.effect(table).mean().shape == (400,)
    assert model.counterfactual(table, w.outcome, w.treatment).mean().shape == (400,)


def test_villages_weaken_the_likelihood():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 20)
    X = rng.standard_normal((1000, 2))
    t = (np.arange(50) % 2)[groups].astype(float)
    y = 5 * rng.standard_normal(50)[groups] + 0.1 * rng.standard_normal(1000)
    assert design_effect(X, t, y, groups) == pytest.approx(20, rel=0.05)
    assert design_effect(X, t, rng.standard_normal(1000), groups) < 1.6
    assert design_effect(X, t, y, None) == 1


def test_few_units_infer_nothing_and_say_so():
    w = world(n=18, strength=2.0)
    with pytest.warns(DataWarning, match="no confounder is inferred"):
        model = VLUCI(DoublyRobustEffect(n_splits=2), n_imputations=2).fit(
            w.X[:, :1], w.outcome, treatment=w.treatment
        )
    assert model.probability_ == 0


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"base": BayesianLinearEffect}, "base"),
        ({"base": 3}, "base"),
        ({"inference": "guess"}, "inference"),
        ({"outcome": "ternary"}, "outcome"),
        ({"noise": "skewed"}, "noise"),
        ({"prior_confounding": 1.5}, "prior_confounding"),
        ({"link_scale": 0}, "link_scale"),
        ({"n_imputations": 0}, "n_imputations"),
        ({"n_grid": 2}, "n_grid"),
    ],
)
def test_parameters_outside_their_domain_are_refused(bad, says):
    w = world(n=60)
    with pytest.raises(ParameterError, match=says):
        VLUCI(**bad).fit(w.X, w.outcome, treatment=w.treatment)


def test_observed_units_need_their_treatment_and_outcome():
    w, model = strong()
    with pytest.raises(TreatmentError, match="no treatment"):
        model.infer_confounders(w.X, w.outcome)
    with pytest.raises(TreatmentError, match="0 or 1"):
        model.counterfactual(w.X, w.outcome, w.treatment + 0.5)
    with pytest.raises(DataError, match="y of shape"):
        model.counterfactual(w.X, w.outcome[:-1], w.treatment)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_arm = w.treatment == 1
        model.counterfactual(w.X[one_arm], w.outcome[one_arm], w.treatment[one_arm])


def test_an_outcome_that_a_feature_decides_leaves_a_curvature_that_can_be_factored():
    X = (20 * np.random.default_rng(0).uniform(size=(20, 5))).round()
    model = VLUCI(**VLUCI._contract_parameters).fit(X, 2 * X[:, 0], treatment=np.arange(20) % 2)
    assert np.isfinite(model.effect(X).draws).all()
    assert abs(float(model.effect(X).ate())) < 1


def test_covariates_that_fit_almost_everything_are_refused():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((60, 50)), np.arange(60) % 2
    y = t + X[:, 0] + rng.standard_normal(60)
    with pytest.raises(DataError, match="many more units than covariates"):
        VLUCI(DoublyRobustEffect(modifiers=[0]), n_imputations=2, n_grid=3, random_state=0).fit(X, y, treatment=t)


def test_bits_of_the_outcome_decide_nothing_where_covariates_fit_it():
    """An outcome moved by its last bits has the same evidence, whether a covariate decides it or hardly."""
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((40, 3)), np.arange(40) % 2
    for noise in (0.0, 1e-6, 0.5):
        y = t + X[:, 0] + noise * rng.standard_normal(40)
        moved = y * (1 + 4e-16 * rng.standard_normal(40))
        grids = [VLUCI(robust(), n_imputations=1, n_grid=3).fit(X, v, treatment=t).engine_.grid for v in (y, moved)]
        np.testing.assert_allclose(grids[0].table, grids[1].table, atol=1e-5)
        assert np.isfinite(grids[0].ate).all()
