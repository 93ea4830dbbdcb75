"""A user's model under the contract: answers that are known, what it must hold, what it reads, its file."""

from __future__ import annotations

import shutil
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import causalsat
from causalsat import PyMCEffect
from causalsat.core.references import looked_up
from causalsat.estimators.pymc_model import fit as model_fit
from causalsat.estimators.pymc_model.build import SavedBuild
from causalsat.exceptions import ConvergenceWarning, DataError, DataWarning, ModelFileError, ParameterError

MODELS = Path(__file__).with_name("user_models.py")
SHORT = {"n_draws": 250, "n_tune": 250, "n_chains": 2, "random_state": 0}


def reference(name):
    return f"{MODELS}:{name}"


@cache
def build(name):
    return looked_up(reference(name), "build", "a function")


def trial(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n, 2)), rng.permutation(n) % 2.0
    return X, X[:, 0] + t * (1 + 0.5 * X[:, 1]) + 0.5 * rng.standard_normal(n), t


def fit(model, *data, **options):
    X, y, t = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return PyMCEffect(model, **SHORT).fit(X, y, treatment=t, **options)


@cache
def fitted():
    return fit(build("simple"), *trial())


# ---------------------------------------------------------------------- answers
def test_effects_are_those_of_the_regression_that_the_model_is():
    """Flat priors: least squares and its standard errors, at places that the fit did not see."""
    X, y, t = trial()
    design = np.column_stack([np.ones(len(y)), X, t, t[:, None] * X])
    beta, rss, *_ = np.linalg.lstsq(design, y, rcond=None)
    covariance = np.linalg.inv(design.T @ design) * rss / (len(y) - 6)
    new = np.array([[0.0, 0.0], [1.0, -1.0], [0.0, 3.0]])
    contrast = np.column_stack([np.zeros((3, 3)), np.ones(3), new])
    post, sd = fitted().effect(new), np.sqrt(np.einsum("ij,jk,ik->i", contrast, covariance, contrast))
    assert np.abs(post.mean() - contrast @ beta).max() < 4 * sd.max() / np.sqrt(250)
    np.testing.assert_allclose(post.sd(), sd, rtol=0.2)
    np.testing.assert_allclose(fitted().effect(new, treatment=0.0, baseline=1.0).draws, -post.draws)


def test_the_mean_outcome_gives_doses_and_curves():
    rng = np.random.default_rng(0)
    dose = rng.uniform(0, 4, 400)
    y = 1 + 3 * dose / (1 + dose) + 0.2 * rng.standard_normal(400)
    est = fit(build("saturating"), rng.standard_normal((400, 1)), y, dose)
    new = np.zeros((1, 1))
    levels = np.array([0.0, 1.0, 3.0])
    curve = [float(est.predict_outcome(new, treatment=d).mean()[0]) for d in levels]
    np.testing.assert_allclose(curve, 1 + 3 * levels / (1 + levels), atol=0.15)
    assert abs(est.effect(new, treatment=3.0, baseline=1.0).mean()[0] - 0.75) < 0.15
    with pytest.raises(ParameterError, match="effects only"):
        fitted().predict_outcome(trial()[0])


def test_the_same_model_of_other_data_is_not_compiled_again(monkeypatch):
    import nutpie

    alone = fit(build("simple"), *trial(300, seed=1)).effect(np.eye(2)).draws
    kept = list(model_fit._KEPT)
    monkeypatch.setattr(model_fit, "_KEPT", kept)
    fit(build("simple"), *trial())
    monkeypatch.setattr(nutpie, "compile_pymc_model", None)
    again = fit(build("simple"), *trial(300, seed=1)).effect(np.eye(2)).draws
    np.testing.assert_array_equal(alone, again)  # whatever was fitted in between


def test_chains_are_judged_by_the_one_policy():
    X, y, t = trial()
    with pytest.warns(ConvergenceWarning, match=r"effective sample size .*raise n_tune"):
        est = PyMCEffect(build("simple"), **{**SHORT, "n_draws": 20}).fit(X, y, treatment=t)
    assert est.effect(X).diagnostics["n_draws"] == 40
    assert {"r_hat", "ess", "divergences"} <= set(fitted().diagnostics_)
    text = str(fitted().summary())
    assert "ATE" in text
    assert "slopes[1]" in text
    assert "X, y and treatment only" in text


# ---------------------------------------------------------------------- what a model must hold
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("without_effect", r"deterministics \(none\)"),
        ("without_features", "without the data 'X'"),
        ("of_the_table", "change with the other units"),
        ("of_the_villages", "'village' have one value for each unit of the fit"),
        ("with_classes", "discrete unobserved variables kind"),
    ],
)
def test_models_without_effects_at_new_places_are_refused_before_sampling(name, says, monkeypatch):
    monkeypatch.setattr(model_fit, "sample", None)
    X, y, t = trial(60)
    with pytest.raises(ParameterError, match=says):
        PyMCEffect(build(name)).fit(
            X, y, treatment=t, groups=np.arange(60) // 3 if name == "of_the_villages" else None
        )


@pytest.mark.parametrize("value", [3, "no_colon", "no_module:f", "statistics:no_function", dict])
def test_what_is_no_function_is_refused(value):
    X, y, t = trial(60)
    with pytest.raises(ParameterError, match="build"):
        PyMCEffect(value).fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match=r"returns a list.*pymc\.Model"):
        PyMCEffect(lambda data: [data]).fit(X, y, treatment=t)


# ---------------------------------------------------------------------- clusters, strata, weights
def test_clusters_that_the_model_does_not_read_are_said():
    X, y, t = trial(60)
    villages = np.arange(60) // 3
    with pytest.warns(DataWarning, match="does not read data.groups"), pytest.raises(TypeError):
        _build_only(build("simple"), X, y, t, groups=villages)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        with pytest.raises(TypeError):
            _build_only(build("villages"), X, y, t, groups=villages)


def _build_only(model, X, y, t, **options):
    """A fit that ends with a TypeError where sampling begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalsat.estimators.pymc_model.estimator.sample", None)
        PyMCEffect(model).fit(X, y, treatment=t, **options)


def test_weights_that_the_model_does_not_read_are_refused():
    X, y, t = trial(60)
    with pytest.raises(ParameterError, match=r"data\.sample_weight"):
        PyMCEffect(build("simple")).fit(X, y, treatment=t, sample_weight=np.linspace(1, 2, 60))


def test_weights_and_designs_are_those_of_weighted_means():
    """Survey weights; and strata of other levels, of which 20 % and 60 % are treated: true effect 1."""
    X, y, t = trial(400)
    weight = np.random.default_rng(1).uniform(0.2, 2, 400)
    est = fit(build("weighted"), X, y, t, sample_weight=weight)
    means = [np.average(y[t == arm], weights=weight[t == arm]) for arm in (0, 1)]
    assert abs(float(est.effect(X).ate()) - (means[1] - means[0])) < 0.03
    south = np.arange(400) < 200
    rng = np.random.default_rng(2)
    t = np.where(south, rng.permutation(400) % 5 < 1, rng.permutation(400) % 5 < 3).astype(float)
    y = t + 4.0 * south + 0.5 * rng.standard_normal(400)
    est = fit(build("weighted"), X, y, t, strata=np.where(south, "south", "north"))
    assert abs(float(est.effect(X).ate()) - 1) < 0.2
    assert est.reads_ == ["sample_weight"]
    with pytest.raises(ParameterError, match=r"reads data\.strata"):
        PyMCEffect(build("simple")).fit(X, y, treatment=t, strata=south)
    with pytest.raises(TypeError):  # sampling begins: this one reads the strata
        _build_only(build("strata"), X, y, t, strata=south)


# ---------------------------------------------------------------------- files
def test_a_loaded_model_predicts_without_the_users_code(tmp_path):
    X, y, t = trial()
    source = tmp_path / "my_models.py"
    shutil.copy(MODELS, source)
    name = f"{source}:simple"
    fit(name, X, y, t).save(tmp_path / "model.safetensors")
    source.unlink()
    again = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.effect(np.eye(2)).draws, fitted().effect(np.eye(2)).draws)
    assert isinstance(again.build, SavedBuild)
    with pytest.raises(ParameterError, match="runs no code"):
        again.fit(X, y, treatment=t)
    with pytest.raises(DataError, match="training data"):
        again.to_pymc()


def test_the_function_is_given_again_to_fit_again(tmp_path):
    path = tmp_path / "model.safetensors"
    fitted().save(path)
    saved = causalsat.load(path).build
    assert saved.name.endswith(":simple")
    for modules in (build("simple"), {saved.name: build("simple")}):
        assert causalsat.load(path, modules=modules).build is build("simple")
    assert causalsat.load(path, modules=[saved.name]).build == saved  # a function that was passed is no reference
    with pytest.raises(ModelFileError, match="another source"):
        causalsat.load(path, modules=build("weighted"))


def test_an_effect_that_no_file_holds_is_fitted_and_refused_by_name_when_saved(tmp_path):
    X, y, t = trial()
    est = fit(build("einsum"), X, y, t)
    np.testing.assert_allclose(est.effect(np.eye(2)).draws, fitted().effect(np.eye(2)).draws)
    with pytest.raises(ModelFileError, match="Einsum"):
        est.save(tmp_path / "model.safetensors")


def test_the_model_of_the_fit_is_there_for_pymcs_own_tools():
    assert [v.name for v in fitted().to_pymc().observed_RVs] == ["y"]
