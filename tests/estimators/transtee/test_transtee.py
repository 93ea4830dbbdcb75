"""TransTEE finds known effects of every kind of treatment; files, roles and errors beyond the contract."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import causalsat
from causalsat import TransTEE
from causalsat.estimators.transtee.data import NetworkShape
from causalsat.estimators.transtee.report import split_attention
from causalsat.exceptions import CausalsatError, DataError, DataWarning, ParameterError, TreatmentError

SMALL = {"n_members": 3, "width": 8, "n_features": 16, "n_draws": 120, "random_state": 0}


def made(n=400, p=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=(n, p))


# ---------------------------------------------------------------------- doses
@pytest.fixture(scope="module")
def dose_model():
    rng, X = made(500)
    t = 1 / (1 + np.exp(-X[:, 0] - rng.normal(size=500)))
    y = np.sin(3 * t) * (1 + X[:, 1]) + X[:, 0] + 0.3 * rng.normal(size=500)
    return TransTEE(**SMALL).fit(X, y, treatment=t), X


def test_curve_of_a_confounded_dose(dose_model):
    est, X = dose_model
    for dose in (0.2, 0.5, 0.8):
        post = est.predict_outcome(X, treatment=dose)
        truth = np.sin(3 * dose) * (1 + X[:, 1]) + X[:, 0]
        assert abs(float(post.ate()) - truth.mean()) < 0.12
        assert np.corrcoef(post.mean(), truth)[0, 1] > 0.95
        assert post.kind == "outcome"
    effect = est.effect(X, treatment=0.6, baseline=0.1)
    truth = (np.sin(1.8) - np.sin(0.3)) * (1 + X[:, 1])
    assert np.sqrt(np.mean((effect.mean() - truth) ** 2)) < 0.35 * truth.std()
    assert est.coding_.kind == "dose"
    assert 0.25 < est.noise_ < 0.4


def test_doses_of_units_are_those_asked_for(dose_model):
    est, X = dose_model
    doses = np.linspace(0.2, 0.8, len(X))
    mixed = est.predict_outcome(X, treatment=doses).draws
    np.testing.assert_allclose(mixed[:, [7]], est.predict_outcome(X[[7]], treatment=doses[7]).draws, rtol=1e-8)


def test_beyond_the_doses_of_the_fit_the_mean_is_a_straight_line_and_the_interval_grows(dose_model):
    est, X = dose_model
    low, high = est.coding_.least, est.coding_.most
    X = X[:10]
    for edge, step in ((high, 0.1), (low, -0.1)):
        with pytest.warns(DataWarning, match="10 of 10 units have doses beyond those of the fit"):
            posts = [est.predict_outcome(X, treatment=edge + k * step) for k in (0, 1, 2, 5)]
        line = [post.mean() for post in posts]
        slope = line[1] - line[0]
        assert np.abs(slope).max() > 0.01
        np.testing.assert_allclose(line[2], line[0] + 2 * slope, atol=1e-8)
        np.testing.assert_allclose(line[3], line[0] + 5 * slope, atol=1e-8)
        near = est.predict_outcome(X, treatment=edge - 0.01 * step).mean()
        np.testing.assert_allclose(line[0] - near, 0.01 * slope, atol=0.1 * np.abs(slope).max() * 0.01 + 1e-3)
        widths = np.array([post.sd() for post in posts])
        assert (np.diff(widths, axis=0) > 0).all()
        assert (widths[3] - widths[0] > 5 * (widths[1] - widths[0])).all()


def test_contrasts_beyond_the_doses_add_up_and_average_as_single_units_do(dose_model):
    est, X = dose_model
    pairs = ((1.4, 0.5), (1.4, 1.2), (1.2, 0.5))
    a, b, c = (est.effect(X[:20], treatment=high, baseline=low).draws for high, low in pairs)
    np.testing.assert_allclose(a, b + c, atol=1e-8)
    post = est.effect(X[:20], treatment=1.4, baseline=0.5)
    assert post.ate().sd()[0] > 0.5 * post.sd().mean()  # the bend is common to all units


def test_doses_within_the_range_are_not_warned_of(dose_model):
    est, X = dose_model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = est.effect(X[:5], treatment=est.coding_.most, baseline=est.coding_.least)
    assert np.isfinite(found.draws).all()
    assert len(found) == 5


def test_attention_names_the_covariates(dose_model):
    est, X = dose_model
    found = est.attention(X[:20], treatment=0.5)
    assert list(found.to_dataframe().columns) == ["x0", "x1", "x2"]
    np.testing.assert_allclose(found.covariates.sum(axis=1), 1)
    assert found.cells is None
    assert found.covariates_sd.shape == (20, 3)
    assert -1 <= found.agreement <= 1


def test_attention_has_the_spread_over_the_networks():
    one, other = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    shape = NetworkShape(n_members=2, n_columns=3, n_basis=1)
    found = split_attention(np.array([one, other]), shape, ("a", "b", "c"), [0])
    np.testing.assert_allclose(found.covariates, [[0.4, 0.2, 0.4]])
    np.testing.assert_allclose(found.covariates_sd, [[0.6 / np.sqrt(2), 0, 0.6 / np.sqrt(2)]], atol=1e-12)
    assert found.agreement == pytest.approx(np.corrcoef(one[0], other[0])[0, 1])
    alone = split_attention(one[None], shape, ("a", "b", "c"), [0])
    assert np.isnan(alone.covariates_sd).all()
    assert np.isnan(alone.agreement)


def test_regularisers_and_propensity_weights_keep_the_answer():
    rng, X = made(400)
    t = X[:, 0] + rng.normal(size=400)
    y = 2 * X[:, 0] + np.tanh(t) + 0.3 * rng.normal(size=400)
    truth = np.tanh(1.0)
    for more in ({"regularizer": "tr"}, {"regularizer": "ptr"}, {"propensity_weights": True}, {"norm": "post"}):
        est = TransTEE(**{**SMALL, "max_epochs": 12}, **more).fit(X, y, treatment=t)
        assert abs(float(est.effect(X, treatment=1.0, baseline=0.0).ate()) - truth) < 0.2, more


def test_a_shift_of_the_doses_is_told_by_wider_intervals():
    rng, X = made(400)
    t = rng.uniform(0, 1, 400)
    y = np.sin(3 * t) + X[:, 0] + 0.3 * rng.normal(size=400)
    est = TransTEE(**SMALL).fit(X, y, treatment=t)
    inside, beyond = (est.predict_outcome(X, treatment=dose).ate() for dose in (0.5, 1.5))
    assert abs(float(inside) - np.sin(1.5) - X[:, 0].mean()) < 0.1
    assert beyond.sd()[0] > 3 * inside.sd()[0]


# ---------------------------------------------------------------------- levels, dosages, structures
def test_levels():
    rng, X = made(500)
    t = rng.integers(0, 3, 500)
    y = X[:, 0] + np.array([0.0, 1.0, -1.0])[t] * (1 + X[:, 1]) + 0.3 * rng.normal(size=500)
    est = TransTEE(treatment_kind="levels", **SMALL).fit(X, y, treatment=t)
    for level, sign in ((1, 1), (2, -1)):
        post = est.effect(X, treatment=level, baseline=0)
        assert abs(float(post.ate()) - sign * (1 + X[:, 1].mean())) < 0.2
        assert np.corrcoef(post.mean(), sign * X[:, 1])[0, 1] > 0.9
    with pytest.raises(ParameterError, match="one of 0, 1, 2"):
        est.effect(X, treatment=3)
    with pytest.raises(TreatmentError, match="levels"):
        est.score(X, y, treatment=t)
    two = TransTEE(treatment_kind="levels", **SMALL).fit(X, y, treatment=np.where(t == 1, 5, 7))
    assert two.coding_.levels == (5.0, 7.0)


def test_a_dosage_of_each_level(tmp_path):
    rng, X = made(600)
    t, s = rng.integers(0, 2, 600), rng.uniform(0, 1, 600)

    def truth(level, dosage):
        return np.where(level == 1, 2 * np.sin(3 * dosage), dosage * X[:, 1]) + X[:, 0]

    y = truth(t, s) + 0.3 * rng.normal(size=600)
    frame = pd.DataFrame(X, columns=list("abc")).assign(arm=t, amount=s)
    est = TransTEE(**SMALL).fit(frame, y, treatment="arm", dosage="amount")
    assert est.coding_.kind == "dosage"
    assert est.design_names_ == ("a", "b", "c")
    for level, dosage in ((0, 0.8), (1, 0.3), (1, 0.9)):
        post = est.predict_outcome(frame, treatment=level, dosage=dosage)
        assert abs(float(post.ate()) - truth(np.full(600, level), dosage).mean()) < 0.15
    post = est.effect(frame, treatment=1, dosage=0.5, baseline=0, baseline_dosage=0.8)
    assert np.corrcoef(post.mean(), -X[:, 1])[0, 1] > 0.9
    with pytest.raises(ParameterError, match="no dosage"):
        est.predict_outcome(frame, treatment=1)
    est.save(tmp_path / "m.safetensors")
    again = causalsat.load(tmp_path / "m.safetensors")
    other = again.effect(frame, treatment=1, dosage=0.5, baseline=0, baseline_dosage=0.8)
    np.testing.assert_array_equal(other.draws, post.draws)


class GraphNetwork(torch.nn.Module):
    """Two rounds of messages between neighbours, and the mean over the nodes."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, width), torch.nn.Linear(width, width)

    def forward(self, adjacency):
        degree = adjacency.sum(dim=2, keepdim=True)
        share = adjacency / degree.clamp_min(1)
        hidden = torch.tanh(self.first(torch.cat([degree / 4, (degree > 0).to(degree)], dim=2)))
        hidden = torch.tanh(self.second(share @ hidden + hidden))
        return hidden.mean(dim=1)


class Faint(torch.nn.Module):
    """An embedding in which treatments differ by a thousandth of what they share."""

    def forward(self, table):
        return 5 + 0.005 * table


def test_embeddings_that_differ_little_are_told_apart():
    """The effect of treatment k is its feature times a covariate; the module shows that feature faintly."""
    rng, X = made(900)
    table = rng.normal(size=(20, 1))
    t = rng.integers(0, 20, 900)
    y = X[:, 0] + table[t, 0] * X[:, 1] + 0.3 * rng.normal(size=900)
    est = TransTEE(treatment_module=Faint(), **{**SMALL, "max_epochs": 15}).fit(X, y, treatment=t, treatments=table)
    high, low = int(table.argmax()), int(table.argmin())
    tau = (table[high] - table[low]) * X[:, 1]
    found = est.effect(X, treatment=high, baseline=low).mean()
    assert np.sqrt(np.mean((found - tau) ** 2)) < 0.15 * tau.std()


def test_graphs_as_treatments(tmp_path):
    """The effect of a graph is its mean degree times a covariate: graphs that no unit had are predicted too."""
    rng, X = made(900)
    graphs = np.triu(rng.random((40, 8, 8)) < rng.uniform(0.1, 0.9, 40)[:, None, None], 1).astype(float)
    graphs += graphs.transpose(0, 2, 1)
    degree = graphs.sum(axis=(1, 2)) / 8
    t = rng.integers(0, 30, 900)
    y = X[:, 0] + degree[t] * (1 + 0.5 * X[:, 1]) + 0.3 * rng.normal(size=900)
    torch.manual_seed(0)
    est = TransTEE(treatment_module=GraphNetwork(), **{**SMALL, "max_epochs": 25})
    est.fit(X, y, treatment=t, treatments=graphs[:30])
    unseen = [float(est.predict_outcome(X, treatment=k, treatments=graphs).ate()) for k in range(30, 40)]
    assert np.corrcoef(unseen, degree[30:])[0, 1] > 0.95
    assert np.abs(unseen - degree[30:]).mean() < 0.35
    with pytest.raises(ParameterError, match="positions"):
        est.predict_outcome(X, treatment=41, treatments=graphs)
    with pytest.raises(ParameterError, match="both, or neither"):
        TransTEE(**SMALL).fit(X, y, treatment=t, treatments=graphs)
    with pytest.raises(TreatmentError, match="positions"):
        TransTEE(treatment_module=GraphNetwork(), **SMALL).fit(X, y, treatment=t + 1, treatments=graphs[:30])
    est.save(tmp_path / "m.safetensors")
    again = causalsat.load(tmp_path / "m.safetensors")
    with pytest.raises(ParameterError, match="treatment_module"):
        again.predict_outcome(X, treatment=2)
    again.set_params(treatment_module=GraphNetwork())
    ours, theirs = (model.predict_outcome(X, treatment=2).draws for model in (est, again))
    np.testing.assert_array_equal(ours, theirs)


# ---------------------------------------------------------------------- training
def test_villages_are_held_out_whole_and_have_an_effect():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 8)
    X = rng.normal(size=(480, 2))
    t = rng.integers(0, 2, 480)
    y = t + X[:, 0] + 1.5 * rng.normal(size=60)[groups] + 0.5 * rng.normal(size=480)
    est = TransTEE(**SMALL).fit(X, y, treatment=t, groups=groups)
    assert est.village_ == pytest.approx(1.5, rel=0.3)
    assert est.noise_ == pytest.approx(0.5, rel=0.25)


def test_training_stops_early_and_keeps_the_best_epoch():
    rng, X = made(200)
    t, y = rng.integers(0, 2, 200), rng.normal(size=200)
    est = TransTEE(**{**SMALL, "patience": 3, "max_epochs": 60, "learning_rate": 0.05}).fit(X, y, treatment=t)
    assert len(est.history_) < 60
    assert len(est.history_) == est.best_epoch_ + 3
    assert est.held_out_r2_ < 0.1
    assert abs(float(est.effect(X).ate())) < 3 * est.effect(X).ate().sd()[0] + 0.05


def test_units_of_the_outcome_do_not_matter():
    rng, X = made(200)
    t = rng.uniform(0, 1, 200)
    y = X[:, 0] + t**2 + 0.3 * rng.normal(size=200)
    quick = {**SMALL, "max_epochs": 6}
    small = TransTEE(**quick).fit(X, y, treatment=t).effect(X, treatment=0.8)
    large = TransTEE(**quick).fit(X, 1e4 + 1000 * y, treatment=t).effect(X, treatment=0.8)
    np.testing.assert_allclose(large.mean(), 1000 * small.mean(), rtol=0.02, atol=5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"norm": "batch"}, "norm"),
        ({"width": 9}, "heads divide"),
        ({"regularizer": "l2"}, "regularizer"),
        ({"n_members": 0}, "n_members"),
        ({"covariates": ["a"]}, "backbone"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"propensity_weights": "yes"}, "propensity_weights"),
    ],
)
def test_bad_parameters(options, says):
    rng, X = made(40)
    with pytest.raises(CausalsatError, match=says):
        TransTEE(**options).fit(X, rng.normal(size=40), treatment=np.arange(40) % 2)


def test_bad_dosages():
    rng, X = made(40)
    y, t = rng.normal(size=40), np.arange(40) % 2
    with pytest.raises(DataError, match="dosage"):
        TransTEE(**SMALL).fit(X, y, treatment=t, dosage=np.full(40, np.nan))
    with pytest.raises(DataError, match="at least 8"):
        TransTEE(**SMALL).fit(X[:4], y[:4], treatment=t[:4])


def test_parameters_set_after_the_fit_wait_for_the_next():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((80, 2)), np.arange(80) % 2
    est = TransTEE(n_members=2, width=8, n_features=8, max_epochs=2, n_draws=20, random_state=0)
    before = est.fit(X, t + X[:, 0], treatment=t).effect(X).draws
    np.testing.assert_array_equal(est.set_params(n_draws=30, n_members=3).effect(X).draws, before)
    assert "2 networks" in str(est.summary())


# ---------------------------------------------------------------------- yes/no outcomes and counts
def sigmoid(v):
    return 1 / (1 + np.exp(-v))


@pytest.fixture(scope="module")
def yes_no():
    rng, X = made(600, 4)
    t = rng.integers(0, 2, 600)
    eta = 1.5 * (X[:, 0] + np.sin(2 * X[:, 1])) - 0.5
    p0, p1 = sigmoid(eta), sigmoid(eta + 1 + X[:, 2])
    y = (rng.random(600) < np.where(t == 1, p1, p0)).astype(float)
    return TransTEE(**SMALL).fit(X, y, treatment=t), X, (p0, p1), (y, t)


def test_probabilities_of_a_yes_no_outcome_lie_between_0_and_1(yes_no):
    est, X, (p0, p1), (y, t) = yes_no
    assert est.family_ == "bernoulli"
    assert np.isnan(est.noise_)
    post = est.predict_outcome(X, treatment=1)
    assert post.draws.min() >= 0
    assert post.draws.max() <= 1
    assert np.sqrt(np.mean((post.mean() - p1) ** 2)) < 0.14
    effect = est.effect(X)
    assert abs(float(effect.ate()) - (p1 - p0).mean()) < 0.08
    assert np.corrcoef(effect.mean(), p1 - p0)[0, 1] > 0.6
    np.testing.assert_allclose(effect.draws, post.draws - est.predict_outcome(X, treatment=0).draws, atol=1e-12)
    assert "differences of probabilities" in str(est.summary())
    normal = TransTEE(family="gaussian", **SMALL).fit(X, y, treatment=t).predict_outcome(X, treatment=1)
    outside = np.mean((normal.draws < 0) | (normal.draws > 1))
    assert outside > 0.05  # what the normal head gives
    assert np.mean((post.mean() - p1) ** 2) < 1.05 * np.mean((normal.mean() - p1) ** 2)


def test_a_yes_no_model_is_saved_with_its_family(yes_no, tmp_path):
    est, X, *_ = yes_no
    est.save(tmp_path / "m.safetensors")
    again = causalsat.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.effect(X[:20]).draws, est.effect(X[:20]).draws)


def test_mean_counts_are_positive_and_closer_than_those_of_a_normal_head():
    rng, X = made(600, 4)
    t = rng.integers(0, 2, 600)

    def mean(level):
        return np.exp(0.75 * (X[:, 0] + np.sin(2 * X[:, 1])) + 0.5 * level * (1 + X[:, 2]))

    y = rng.poisson(mean(t) * rng.gamma(2, 0.5, 600)).astype(float)
    error = {}
    for family in ("negative_binomial", "gaussian"):
        est = TransTEE(family=family, **SMALL).fit(X, y, treatment=t)
        post = est.predict_outcome(X, treatment=1)
        error[family] = np.sqrt(np.mean((post.mean() - mean(1)) ** 2))
        if family == "negative_binomial":
            assert post.draws.min() > 0
            assert est.noise_ == pytest.approx(np.sqrt(0.5), abs=0.25)  # of the gamma: d^2 = 1/2
            assert abs(float(est.effect(X).ate()) - (mean(1) - mean(0)).mean()) < 0.5
    assert error["negative_binomial"] < 0.8 * error["gaussian"]


def test_villages_of_a_yes_no_outcome_are_averaged_over():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 12)
    X, t = rng.normal(size=(960, 2)), rng.integers(0, 2, 960)
    u = 1.2 * rng.normal(size=80)
    y = (rng.random(960) < sigmoid(X[:, 0] + 1.5 * t + u[groups] - 0.5)).astype(float)
    est = TransTEE(**SMALL).fit(X, y, treatment=t, groups=groups)
    assert est.village_ == pytest.approx(1.2, abs=0.35)
    many = 1.2 * rng.normal(size=4000)
    truth = np.mean(sigmoid(X[:200, [0]] + 1.0 + many) - sigmoid(X[:200, [0]] - 0.5 + many))
    assert abs(float(est.effect(X[:200]).ate()) - truth) < 0.08


@pytest.mark.parametrize(
    ("family", "y", "says"),
    [
        ("poisson", np.arange(40.0), "family"),
        ("bernoulli", np.arange(40.0), "0 and 1, and both"),
        ("negative_binomial", np.linspace(-1, 1, 40), "counts 0, 1, 2"),
        ("negative_binomial", np.arange(40) + 0.5, "counts 0, 1, 2"),
        ("negative_binomial", np.zeros(40), "all zero"),
    ],
)
def test_outcomes_that_a_family_cannot_have(family, y, says):
    _, X = made(40)
    with pytest.raises(CausalsatError, match=says):
        TransTEE(family=family, **SMALL).fit(X, y, treatment=np.arange(40) % 2)
