"""ImageConfounding: known effects, independent implementations, coverage, salience where it must be."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm

import causalsat
from causalsat import ImageConfounding, LearnedFilters, PyramidFeatures, SupervisedEncoder
from causalsat.estimators.confounding.estimates import att, hajek, naive_difference
from causalsat.estimators.confounding.nuisances import HeldOutLogit, HeldOutRidge, confounding_nuisances
from causalsat.exceptions import CausalsatError, ImageryError, OverlapWarning, ParameterError
from causalsat.inference.nuisances import Nuisances
from causalsat.simulate import colour_confounding, kernel_confounding, satellite_trial

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.OverlapWarning")


@pytest.fixture(scope="module")
def data():
    return colour_confounding(800, 16, seed=1)


@pytest.fixture(scope="module")
def fitted(data):
    est = ImageConfounding(PyramidFeatures(2), covariates=["x1", "x2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return est.fit(data.chips(), data.outcome, treatment=data.treatment)


def observational(n=600, seed=0):
    """A table with a known propensity and effect 1 + x0."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    e = 1 / (1 + np.exp(-X[:, 0] - 0.5 * X[:, 1]))
    t = (rng.random(n) < e).astype(float)
    y = X @ [1.0, 1.0, 0.5] + t * (1 + X[:, 0]) + 0.5 * rng.standard_normal(n)
    return X, y, t, e


# ---------------------------------------------------------------------- against others
def test_hajek_is_that_of_statsmodels():
    from statsmodels.treatment.treatment_effects import TreatmentEffect

    X, y, t, _ = observational()
    exog = sm.add_constant(X)
    logit = sm.Logit(t, exog).fit(disp=0)
    other = TreatmentEffect(sm.OLS(y, exog), t, results_select=logit).ipw(return_results=False)[0]
    ours = hajek(y, t, logit.predict(), np.ones(len(y)))
    assert ours.estimate == pytest.approx(float(other), rel=1e-8)
    treated, control = t / logit.predict(), (1 - t) / (1 - logit.predict())
    by_hand = treated @ y / treated.sum() - control @ y / control.sum()
    assert ours.estimate == pytest.approx(by_hand, rel=1e-10)


def test_naive_difference_and_its_error_are_those_of_welch():
    _, y, t, _ = observational()
    found = naive_difference(y, t, np.ones(len(y)))
    assert found.estimate == pytest.approx(y[t == 1].mean() - y[t == 0].mean())
    welch = np.sqrt(sum(y[t == a].var(ddof=1) / (t == a).sum() for a in (0, 1)))
    assert found.se == pytest.approx(welch, rel=5e-3)


def test_scores_of_a_plain_learner_are_close_to_econml():
    from econml.dr import LinearDRLearner
    from sklearn.linear_model import LinearRegression, LogisticRegression

    X, y, t, _ = observational(2000)
    nuisances, _ = confounding_nuisances(
        X, y, t, outcome_model=LinearRegression(), propensity_model=LogisticRegression(C=1e6)
    )
    from causalsat.estimators.doubly_robust import average_effect
    from causalsat.inference.nuisances import dr_scores

    ours = average_effect(dr_scores(y, t, nuisances), np.ones(len(y)))
    peer = LinearDRLearner(
        model_propensity=LogisticRegression(C=1e6), model_regression=LinearRegression(), cv=5, random_state=0,
        min_propensity=0.01,
    )  # fmt: skip
    peer.fit(y, t, X=None, W=X)
    inference = peer.intercept__inference(T=1)
    # both cross-fit the same linear models; folds, and the peer's common model of both arms, differ
    assert ours.estimate == pytest.approx(float(np.ravel(inference.point_estimate)[0]), abs=1.0 * ours.se)
    assert ours.se == pytest.approx(float(np.ravel(inference.stderr)[0]), rel=0.25)
    assert abs(ours.estimate - 1) < 3 * ours.se


def test_att_differs_from_ate_as_the_treated_do():
    X, y, t, e = observational(20_000)
    mu0 = X @ [1.0, 1.0, 0.5]
    truth = (1 + X[:, 0])[t == 1].mean()
    zero = np.zeros(len(y))
    right = Nuisances(mu0, mu0 + 1 + X[:, 0], e, mu0, zero.astype(int), zero > 0)
    wrong_outcome = Nuisances(zero, zero, e, zero, zero.astype(int), zero > 0)
    wrong_propensity = Nuisances(mu0, mu0, np.full(len(y), 0.5), mu0, zero.astype(int), zero > 0)
    for nuisances in (right, wrong_outcome, wrong_propensity):  # doubly robust
        found = att(y, t, nuisances, np.ones(len(y)))
        assert abs(found.estimate - truth) < 4 * found.se
        assert found.se < 0.06
    assert truth > 1.3


# ---------------------------------------------------------------------- learners
def test_penalties_are_chosen_on_clusters_not_on_copies():
    """40 images with 10 units each and an outcome that is noise of the image: copies would betray it."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(40), 10)
    X = rng.standard_normal((40, 30))[image]
    y = rng.standard_normal(40)[image] + 0.1 * rng.standard_normal(400)
    t = (rng.random(40) < 0.5)[image]
    assert HeldOutRidge().fit(X, y, groups=image).penalty_ > 10 * HeldOutRidge().fit(X, y).penalty_
    assert HeldOutLogit().fit(X, t, groups=image).C_ < HeldOutLogit().fit(X, t).C_


def test_ridge_agrees_with_scikit_learn_at_its_penalty():
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    X, y, _, _ = observational(300)
    weight = np.random.default_rng(0).uniform(0.5, 2, 300)
    ours = HeldOutRidge().fit(X, y, sample_weight=weight)
    scaler = StandardScaler().fit(X, sample_weight=weight)
    other = Ridge(alpha=ours.penalty_ * 300).fit(scaler.transform(X), y, sample_weight=weight / weight.mean())
    np.testing.assert_allclose(ours.predict(X), other.predict(scaler.transform(X)), rtol=1e-6, atol=1e-8)
    holed = X.copy()
    holed[0, 0] = np.nan
    assert np.isfinite(ours.predict(holed)).all()


def test_the_form_of_the_outcome_model_follows_held_out_loss():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 60))
    t = (rng.random(600) < 0.5).astype(float)
    common, opposite = X @ np.full(60, 0.2), X[:, 0] * (2 * t - 1) * 3
    noise = rng.standard_normal(600)
    assert confounding_nuisances(X, common + t + noise, t)[1].outcome_form == "both arms"
    assert confounding_nuisances(X, opposite + t + noise, t)[1].outcome_form == "per arm"


# ---------------------------------------------------------------------- the estimator
def test_it_removes_the_bias_of_the_image(data, fitted):
    assert fitted.naive_.estimate - data.effect > 1.6
    assert abs(fitted.ate_.estimate - data.effect) < 0.3
    assert fitted.ate_.lower < data.effect < fitted.ate_.upper
    tabular = ImageConfounding(PyramidFeatures(2)).fit(data.chips(), data.outcome, treatment=data.treatment)
    assert abs(tabular.ate_.estimate - data.effect) > 0.6  # without the covariates
    raw, weighted = fitted.balance_.worst
    assert raw > 0.5
    assert weighted < 0.6 * raw
    assert fitted.held_out_.log_loss < fitted.held_out_.log_loss_share - 0.1
    assert fitted.held_out_.outcome_r2 > 0.5


def test_tables_and_words(data, fitted):
    table = fitted.estimates()
    assert list(table.index) == ["naive difference", "ATE, Hajek IPW", "ATE, AIPW", "ATT, AIPW"]
    assert table.loc["ATE, AIPW", "estimate"] == fitted.ate_.estimate
    text = str(fitted.summary())
    for word in ("naive difference", "Hajek", "robustness value", "bounds 0.01, 0.99", "weighted"):
        assert word in text
    post = fitted.effect(data.chips()[:7])
    np.testing.assert_allclose(post.mean(), fitted.ate_.estimate, rtol=1e-6)
    assert post.sd()[0] == pytest.approx(fitted.ate_.se, rel=0.1)
    low, high = post.interval(0.95)[0]
    assert (low, high) == (pytest.approx(fitted.ate_.lower, abs=0.06), pytest.approx(fitted.ate_.upper, abs=0.06))


def test_salience_finds_the_covariates_the_image_and_the_band(data, fitted):
    table = fitted.salience_table()
    assert (table.loc[["x1", "x2"], "per_sd"] > 0.1).all()
    assert table.loc["image", "spread"] > 0.1
    chips = data.chips()[:12]
    values = fitted.salience(chips, window_px=16, stride_px=16).values
    # the whole image put at the bands' means: its own part of the log-odds, which is the red level
    level = data.images[:12, 0].mean(axis=(1, 2))
    assert np.corrcoef(values.mean(axis=(1, 2)), level)[0, 1] > 0.9
    local = fitted.salience(chips[:1])
    assert local.dims == ("unit", "y", "x")
    assert local.shape == (1, 16, 16)
    chance = fitted.predict_propensity(data.chips())
    assert np.corrcoef(chance, data.propensity)[0, 1] > 0.95


def test_salience_is_at_the_spot_that_decides():
    rng = np.random.default_rng(0)
    images = 0.3 * rng.standard_normal((300, 1, 24, 24)).astype(np.float32)
    bright = rng.random(300) < 0.5
    images[bright, 0, 4:8, 12:16] += 2
    t = (rng.random(300) < np.where(bright, 0.85, 0.15)).astype(float)
    est = ImageConfounding(PyramidFeatures(4)).fit(images, 2.0 * bright + t + rng.standard_normal(300), treatment=t)
    values = est.salience(images[bright][:4], window_px=4, stride_px=4).values
    spot = values[:, 4:8, 12:16].mean(axis=(1, 2))
    rest = np.abs(values).mean(axis=(1, 2))
    assert (spot > 3 * rest).all()
    assert abs(est.ate_.estimate - 1) < 0.4 < est.naive_.estimate - 1


def test_modifiers_bring_back_the_conditional_effect(tmp_path):
    data = colour_confounding(1500, 8, seed=3)
    tau = 2.0 + data.covariates["x1"]
    outcome = data.outcome + data.treatment * data.covariates["x1"]
    est = ImageConfounding(PyramidFeatures(2), covariates=["x1", "x2"], modifiers=["x1", "latent*"], n_latents=2)
    est.fit(data.chips(), outcome, treatment=data.treatment)
    found = est.effect(data.chips())
    assert np.corrcoef(found.mean(), tau)[0, 1] > 0.9
    assert abs(est.coef_[list(est.modifier_names_).index("x1") + 1] - 1) < 0.35
    assert "latent1" in str(est.summary())
    est.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.effect(data.chips()).draws, found.draws)
    assert str(again.summary()) == str(est.summary())
    np.testing.assert_array_equal(again.predict_propensity(data.chips()), est.predict_propensity(data.chips()))
    with pytest.raises(CausalsatError, match="x1"):
        est.effect(data.chips().drop_vars("x1"))


def test_known_propensities_are_used(data):
    est = ImageConfounding(PyramidFeatures(2), min_propensity=0.05)
    est.fit(data.chips(), data.outcome, treatment=data.treatment, propensity=data.propensity)
    np.testing.assert_allclose(est.nuisances_.propensity, np.clip(data.propensity, 0.05, 0.95))
    assert est.clipped_share_ == pytest.approx(np.mean((data.propensity < 0.05) | (data.propensity > 0.95)))
    assert abs(est.ate_.estimate - 2) < 4 * est.ate_.se


def test_clipping_is_said_aloud(data):
    est = ImageConfounding(PyramidFeatures(2), covariates=["x1", "x2"], min_propensity=0.2)
    with pytest.warns(OverlapWarning, match=r"outside \[0.2, 0.8\]"):
        est.fit(data.chips(), data.outcome, treatment=data.treatment)
    assert f"{est.clipped_share_:.1%}" in str(est.summary())
    assert est.clipped_share_ > 0.2


def test_estimates_do_not_depend_on_the_order_of_the_rows(data):
    rows = np.random.default_rng(3).permutation(300)
    fits = []
    for order in (np.arange(300), rows):
        est = ImageConfounding(PyramidFeatures(2), covariates=["x1", "x2"], modifiers="x1", n_draws=50)
        fits.append(est.fit(data.chips()[order], data.outcome[order], treatment=data.treatment[order]))
    one, other = fits
    np.testing.assert_allclose(other.estimates(), one.estimates(), rtol=1e-9)
    np.testing.assert_allclose(other.scores_, one.scores_[rows], rtol=1e-9)
    np.testing.assert_allclose(other.nuisances_.propensity, one.nuisances_.propensity[rows], rtol=1e-9)
    np.testing.assert_array_equal(other.nuisances_.fold, one.nuisances_.fold[rows])
    np.testing.assert_allclose(other.predict(data.chips()[:9]), one.predict(data.chips()[:9]), rtol=1e-9)


def test_units_of_one_image_are_a_cluster(data):
    """Each unit five times is no more data: without clusters the error would be less by the root of five."""
    chips, y, t = data.chips()[:200], data.outcome[:200], data.treatment[:200]
    once = ImageConfounding(PyramidFeatures(2)).fit(chips, y, treatment=t)
    rows = np.repeat(np.arange(200), 5)
    many = ImageConfounding(PyramidFeatures(2)).fit(chips[rows], y[rows], treatment=t[rows])
    assert many.n_groups_ == once.n_images_ == 200
    assert many.ate_.se == pytest.approx(once.ate_.se, rel=0.1)
    assert many.sensitivity_.se == pytest.approx(once.sensitivity_.se, rel=0.1)
    named = ImageConfounding(PyramidFeatures(2)).fit(chips[rows], y[rows], treatment=t[rows], groups=rows)
    assert named.ate_ == many.ate_


def test_folds_keep_images_whole_that_several_clusters_share(data):
    rows = np.repeat(np.arange(100), 4)
    groups = np.arange(400) // 2  # two clusters an image
    est = ImageConfounding(PyramidFeatures(2)).fit(
        data.chips()[rows], data.outcome[rows], treatment=data.treatment[rows], groups=groups
    )
    assert est.n_groups_ == 200
    assert all(len(np.unique(est.nuisances_.fold[rows == image])) == 1 for image in range(100))


BAD = [
    ({"propensity_model": "forest"}, "'forest'"),
    ({"propensity_model": 3}, "predict_proba"),
    ({"n_latents": 0}, "n_latents=0"),
    ({"min_propensity": 0.6}, "min_propensity=0.6"),
    ({"modifiers": "altitude"}, "altitude"),
    ({"regularisation": "lasso"}, "lasso"),
]


@pytest.mark.parametrize(("options", "says"), BAD, ids=[says for _, says in BAD])
def test_bad_parameters_say_what_is_expected(data, options, says):
    est = ImageConfounding(PyramidFeatures(2), **options)
    with pytest.raises(CausalsatError, match=says):
        est.fit(data.chips()[:100], data.outcome[:100], treatment=data.treatment[:100])


def test_bad_images_say_what_to_do(data, fitted):
    with pytest.raises(ImageryError, match="as in training"):
        fitted.salience(data.chips()[:2, :, :8, :8])
    with pytest.raises(ParameterError, match="window_px=40"):
        fitted.salience(data.chips()[:2], window_px=40)
    assert fitted.chip_shape_ == (3, 16, 16)


# ---------------------------------------------------------------------- coverage
@pytest.mark.statistical
def test_intervals_cover_in_benchmark_a():
    """60 replications; at 95 % coverage fewer than 51 or a bias above 0.2 are a sign of a fault."""
    errors, covered = [], 0
    for seed in range(60):
        data = colour_confounding(500, 8, seed=100 + seed)
        est = ImageConfounding(PyramidFeatures(2), covariates=["x1", "x2"], n_latents=3)
        est.fit(data.chips(), data.outcome, treatment=data.treatment)
        errors.append(est.ate_.estimate - data.effect)
        covered += est.ate_.lower < data.effect < est.ate_.upper
    assert abs(np.mean(errors)) < 0.2
    assert covered >= 51


@pytest.mark.slow
def test_satellite_study_of_villages_is_adjusted():
    trial = satellite_trial("confounded", n_sites=200, seed=2)
    imagery, naive, adjusted = causalsat.open_imagery(trial.imagery), [], []
    for draw in range(5):
        units = trial.draw_outcomes(draw).units
        est = ImageConfounding(imagery=imagery, size_m=trial.truth["chip_m"], covariates=["schooling", "assets"])
        est.fit(units, units["outcome"], treatment="treatment", groups="site")
        naive.append(est.naive_.estimate - units["tau"].mean())
        adjusted.append(est.ate_.estimate - units["tau"].mean())
    assert np.mean(naive) > 0.25
    assert abs(np.mean(adjusted)) < 0.5 * np.mean(naive)
    assert est.n_images_ == est.n_groups_ == 200
    assert {"schooling missing", "assets missing"} <= set(est.balance_.names)


# ---------------------------------------------------------------------- encoders that are trained on outcomes
@pytest.fixture(scope="module")
def streaks():
    return kernel_confounding(4, 300, 48, seed=2)


@pytest.fixture(scope="module")
def learned(streaks):
    est = ImageConfounding(LearnedFilters(max_px=4, n_folds=1), n_splits=3)
    return est.fit(streaks.images, streaks.outcome, treatment=streaks.treatment)


def test_learned_filters_remove_the_bias_of_a_single_streak(streaks, learned):
    assert learned.naive_.estimate > 1.5
    assert abs(learned.ate_.estimate - streaks.effect) < 3 * learned.ate_.se < 0.1
    assert learned.held_out_.outcome_r2 > 0.95  # the noise leaves 0.99
    assert all(one.kept_ == [True] for one in learned.encoder_.encoders_)


def test_nuisances_of_a_fold_do_not_see_its_outcomes(streaks, learned):
    fold = learned.nuisances_.fold
    moved = np.flatnonzero(fold == 1)[0]
    from causalsat.estimators.confounding.encoder import FoldEncoders

    units = np.arange(300)
    roles = {"unit_image": units, "clusters": units, "fold": fold, "covariates": np.empty((300, 0))}
    args = (streaks.images, streaks.treatment)
    y = np.where(units == moved, streaks.outcome + 5, streaks.outcome)
    found = []
    for outcome in (streaks.outcome, y):
        encoders = FoldEncoders(LearnedFilters(max_px=4, n_folds=1))
        found.append(encoders.fit_folds(args[0], outcome, args[1], **roles)[0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert np.abs(found[0][0] - found[1][0]).max() > 1e-3


def test_a_study_with_trained_encoders_is_saved_and_predicts(streaks, learned, tmp_path):
    chance = learned.predict_propensity(streaks.images[:20])
    assert np.corrcoef(chance, streaks.propensity[:20])[0, 1] > 0.95
    causalsat.save(learned, tmp_path / "study.safetensors")
    loaded = causalsat.load(tmp_path / "study.safetensors")
    np.testing.assert_allclose(loaded.predict_propensity(streaks.images[:20]), chance, rtol=1e-9)


def test_a_supervised_encoder_is_cross_fitted_too(data):
    encoder = SupervisedEncoder(PyramidFeatures(2), n_folds=2, max_epochs=5)
    est = ImageConfounding(encoder, covariates=["x1", "x2"], n_splits=2)
    est.fit(data.chips(), data.outcome, treatment=data.treatment)
    assert abs(est.ate_.estimate - 2) < 0.4 < est.naive_.estimate - 2
    assert len(est.encoder_.encoders_) == 2
