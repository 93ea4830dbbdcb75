"""The parts of TransTEE against closed forms: evidence, posterior, adversaries, members, folds, weights."""

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.special import expit
from scipy.stats import bernoulli, multivariate_normal, nbinom, norm
from sklearn.linear_model import LogisticRegression

from causalsat import TransTEE
from causalsat.estimators.transtee import families, fit
from causalsat.estimators.transtee import head as head
from causalsat.estimators.transtee import training as training
from causalsat.estimators.transtee.data import NetworkShape, column_groups, make_units
from causalsat.estimators.transtee.families import Family
from causalsat.estimators.transtee.fit import training_units
from causalsat.estimators.transtee.network import TokenNetwork
from causalsat.estimators.transtee.treatments import TreatmentCoding, inverse_propensity

SHAPE = NetworkShape(n_members=3, n_columns=4, n_basis=2, width=8, n_blocks=1, n_features=5)


def network(shape=SHAPE, seed=0):
    torch.manual_seed(seed)
    return TokenNetwork(shape).double().eval()


def batch(n=6, p=4, k=2, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, p))), torch.from_numpy(rng.normal(size=(n, k)))


# ---------------------------------------------------------------------- network
def test_members_are_separate_networks():
    net = network()
    x, t = batch()
    before = net(x, t).detach().clone()
    with torch.no_grad():
        for value in net.parameters():
            value[1] += 0.3
    after = net(x, t).detach()
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    learned = torch.tensor(column_groups(SHAPE)) == 3
    assert (after[1] - before[1])[:, learned].abs().max() > 0.01
    assert torch.equal(after[1][:, ~learned], before[1][:, ~learned])


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_a_units_features_do_not_depend_on_its_batch(norm):
    net = network(NetworkShape(2, 4, 2, width=8, n_blocks=1, norm=norm))
    x, t = batch()
    torch.testing.assert_close(net(x[:1], t[:1]), net(x, t)[:, :1])


def test_columns_can_be_told_apart_only_with_an_embedding():
    x, t = batch()
    swapped = x[:, [1, 0, 2, 3]]
    for own in (True, False):
        net = network(NetworkShape(1, 4, 2, width=8, n_blocks=1, column_embedding=own))
        learned = torch.tensor(column_groups(net.shape)) == 3
        gap = (net(x, t) - net(swapped, t))[..., learned].abs().max()
        assert (gap > 1e-3) if own else (gap < 1e-10)


def test_attention_sums_to_one_over_tokens():
    weights = network().attention(*batch())
    assert weights.shape == (3, 6, 4)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 6, dtype=torch.float64))
    assert (weights > 0).all()


def test_output_columns_are_what_their_groups_say():
    shape = NetworkShape(1, n_columns=2, n_basis=2, width=4, n_features=3, crossed=1)
    x, t = batch(5, 2)
    out, groups = network(shape)(x, t)[0], np.array(column_groups(shape))
    torch.testing.assert_close(out[:, groups == 0], torch.ones(5, 1, dtype=torch.float64))
    torch.testing.assert_close(out[:, groups == 1], t)
    torch.testing.assert_close(out[:, groups == 2], x)
    torch.testing.assert_close(out[:, groups == 4], x * t[:, 1:])


# ---------------------------------------------------------------------- heads
def test_training_loss_is_the_negative_log_evidence():
    rng = np.random.default_rng(0)
    phi, y, w = rng.normal(size=(1, 7, 3)), rng.normal(size=7), rng.uniform(0.5, 2, 7)
    loss = head.EvidenceLoss(1, [0, 1, 1]).double().train()
    with torch.no_grad():
        loss.scale[:] = torch.tensor([0.2, -0.4, 0.0, 0.0, 0.0]) / head.SPEED
        loss.noise[:] = -0.3 / head.SPEED
    targets = torch.from_numpy(np.column_stack([y, w, np.ones(7)]))
    value = float(loss(torch.from_numpy(phi), targets)) * w.sum()
    s2 = np.exp(2 * np.array([0.2, -0.4, -0.4]))
    noise = np.exp(-0.6)
    cov = (phi[0] * s2) @ phi[0].T + np.diag(noise / w)
    # constants apart, and a unit of weight w counts as w units of the noise's log
    expected = -multivariate_normal(np.zeros(7), cov).logpdf(y) - 3.5 * np.log(2 * np.pi)
    expected += 0.5 * np.log(w).sum() + 0.5 * (w.sum() - 7) * np.log(noise)
    assert value == pytest.approx(expected, rel=1e-6)


def test_evaluation_loss_is_the_error_of_units_not_trained_on():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = X @ [1.0, -2.0] + 0.1 * rng.normal(size=400)
    used = np.arange(400) % 2 == 0
    y[~used] += 3.0
    loss = head.EvidenceLoss(1, [1, 1]).double().eval()
    targets = torch.from_numpy(np.column_stack([y, np.ones(400), used]))
    assert float(loss(torch.from_numpy(X[None]), targets)) == pytest.approx(9.0, rel=0.1)


def test_posterior_with_villages_is_generalised_least_squares():
    rng = np.random.default_rng(1)
    phi, y, w = rng.normal(size=(30, 3)), rng.normal(size=30), rng.uniform(0.5, 2, 30)
    groups, scale = np.repeat(np.arange(6), 5), np.array([1.0, 0.5, 2.0])
    found = head.posterior(phi, y, w, groups, scale, 0.7, 1.3)
    V = np.diag(0.49 / w) + 1.69 * (groups[:, None] == groups)
    precision = phi.T @ np.linalg.solve(V, phi) + np.diag(1 / scale**2)
    np.testing.assert_allclose(found.root @ found.root.T, np.linalg.inv(precision), rtol=1e-8)
    np.testing.assert_allclose(found.mean, np.linalg.solve(precision, phi.T @ np.linalg.solve(V, y)), rtol=1e-8)


def test_deviations_have_the_posterior_covariance_and_mean_zero():
    root = np.array([[1.0, 0.0], [0.5, 0.8]])
    one, two = head.draw_deviations([head.Head(np.zeros(2), root)] * 2, 8000, np.random.default_rng(0))
    assert one.shape == two.shape == (2, 4000)
    np.testing.assert_allclose(one.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(np.hstack([one, two])), root @ root.T, atol=0.05)


def test_the_truth_lies_among_the_members_as_one_more_would():
    """Intervals from two to eight members hold one more from the same distribution at their level."""
    rng = np.random.default_rng(0)
    assert (head.draw_mixing(1, 10, rng) == 0).all()
    for m in (2, 5, 8):
        weights = head.draw_mixing(m, 4000, rng)
        np.testing.assert_allclose(weights.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(np.cov(weights.T), np.eye(m) * (1 + 1 / m) / (m - 1), atol=0.1)
        members, truth = rng.normal(size=(m, 20_000)), rng.normal(size=20_000)
        gap = members - members.mean(axis=0)
        variance = np.einsum("sm,sk,mn,kn->n", weights, weights, gap, gap, optimize=True) / len(weights)
        assert np.mean((truth - members.mean(axis=0)) ** 2) == pytest.approx(variance.mean(), rel=0.05)


def test_heads_take_the_noise_of_held_out_units():
    """Features that have learned the training outcomes by heart do not make the noise small."""
    rng = np.random.default_rng(0)
    n = 1000
    y = rng.normal(size=n)
    used = np.arange(n)[None] % 5 != np.arange(5)[:, None]
    phi = np.stack([np.column_stack([np.ones(n), np.where(mask, y, rng.normal(size=n))]) for mask in used])
    heads = head.fit_heads(phi, y, np.ones(n), used, None, np.ones((5, 2)), np.full(5, 0.1))
    assert heads.noise == pytest.approx(np.sqrt(2), rel=0.1)
    assert heads.village == 0
    assert np.isfinite(heads.residual).all()


# ---------------------------------------------------------------------- adversaries
def test_ptr_is_the_likelihood_of_each_unit_under_its_own_prediction():
    rng = np.random.default_rng(0)
    mean, log_variance, t = rng.normal(size=(2, 5)), 0.5 * rng.normal(size=(2, 5)), rng.normal(size=5)
    outputs = torch.from_numpy(np.stack([mean, log_variance], axis=2))
    found = float(training.adversary_loss(outputs, torch.from_numpy(t), "ptr", 0))
    expected = np.mean(0.5 * ((t - mean) ** 2 / np.exp(log_variance) + log_variance))
    every_pair = np.mean(0.5 * ((t[:, None, None] - mean) ** 2 / np.exp(log_variance) + log_variance))
    assert found == pytest.approx(expected)
    assert abs(found - every_pair) > 0.01
    tr = float(training.adversary_loss(outputs[..., :1], torch.from_numpy(t), "tr", 0))
    assert tr == pytest.approx(np.mean((t - mean) ** 2))


def test_levels_have_the_cross_entropy():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    found = float(training.adversary_loss(logits, torch.tensor([0.0, 0.0]), "tr", 2))
    assert found == pytest.approx(-np.mean([2 - np.log(np.exp(2) + 1), 0 - np.log(1 + np.e)]))


def adversarial_run(alpha):
    """Weights after training on units whose dose the first covariate decides."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    t = (X[:, 0] + 0.3 * rng.normal(size=300)).astype(np.float32)
    y = torch.from_numpy((X[:, 1] + 0.1 * rng.normal(size=300)).astype(np.float32))
    inputs = {"columns": torch.from_numpy(X), "basis": torch.from_numpy(t[:, None]), "treatment": torch.from_numpy(t)}
    data = training.TrainingData(inputs, y, torch.ones(300), rng.random((300, 1)) < 0.8)
    adversary = None if alpha is None else training.Adversary("tr", 0, alpha)
    settings = training.TrainSettings(max_epochs=12, patience=12, learning_rate=0.02)
    return training.train_members(NetworkShape(1, 3, 1, width=4, n_features=8), data, settings, adversary).state


def test_the_discriminator_learns_and_the_network_makes_it_hard(monkeypatch):
    losses = []
    own = training.AdversarialNet._opponent_loss

    def recorded(self, token, treatment):
        value = own(self, token, treatment)
        losses.append((token.requires_grad, float(value)))
        return value

    monkeypatch.setattr(training.AdversarialNet, "_opponent_loss", recorded)
    plain, watched = adversarial_run(None), adversarial_run(0.0)
    for name, value in plain.items():  # without weight on it, the discriminator leaves the network alone
        np.testing.assert_array_equal(watched[name], value)
    alone = [value for grad, value in losses if not grad]
    assert len(alone) == len(losses) / 2  # its own steps are on detached tokens
    assert np.mean(alone[-5:]) < 0.7 * np.mean(alone[:5])
    losses.clear()
    adversarial_run(1.0)
    opposed = [value for grad, value in losses if not grad]
    assert np.mean(opposed[-5:]) > 1.3 * np.mean(alone[-5:])


# ---------------------------------------------------------------------- folds, treatments, weights
def test_members_do_without_whole_villages():
    groups = np.repeat(np.arange(23), np.random.default_rng(0).integers(1, 9, 23))
    used = training_units(len(groups), 7, groups, np.random.default_rng(1))
    assert all(len(np.unique(used[groups == g], axis=0)) == 1 for g in range(23))
    np.testing.assert_array_equal(used[:, :2], used[:, 5:])  # five folds for seven members
    np.testing.assert_array_equal((~used[:, :5]).sum(axis=1), 1)
    assert np.ptp(used.sum(axis=0)) <= 8


@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_few_villages_leave_every_member_something_to_train_on_and_something_held_out(n_groups):
    groups = np.arange(60) % n_groups
    used = training_units(60, 5, groups, np.random.default_rng(0))
    assert used.any(axis=0).all()
    assert (~used).any(axis=0).all()


def test_dosage_features_are_zero_for_other_levels():
    coding = TreatmentCoding("dosage", (0.0, 2.0), 0.0, 1.0, 0.5, 0.3)
    basis = coding.basis(np.array([0.0, 2.0]), np.array([0.2, 0.2]))
    half = coding.n_basis // 2
    assert basis.shape == (2, coding.n_basis)
    np.testing.assert_array_equal(basis[0, half:], 0)
    np.testing.assert_allclose(basis[0, :half], basis[1, half:])


def test_propensity_weights_balance_a_confounder():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    ones = np.ones(4000)
    t = (rng.random(4000) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    w = inverse_propensity(X, t, None, TreatmentCoding("binary", (0.0, 1.0)), None, ones, None)
    gap = [np.average(X[t == arm, 0], weights=w[t == arm]) for arm in (0, 1)]
    assert abs(gap[1] - gap[0]) < 0.1 < 0.5 < X[t == 1, 0].mean() - X[t == 0, 0].mean()
    dose = 0.7 * X[:, 0] + rng.normal(size=4000)
    w = inverse_propensity(X, dose, None, TreatmentCoding("dose"), None, ones, None)
    weighted = np.cov(X[:, 0], dose, aweights=w)[0, 1]
    assert abs(weighted) < 0.25 < 0.6 < np.cov(X[:, 0], dose)[0, 1]
    known = inverse_propensity(X, t, None, TreatmentCoding("binary", (0.0, 1.0)), None, ones, np.full(4000, 0.5))
    assert np.ptp(known) < 0.1


def test_a_known_probability_weights_units_once(monkeypatch):
    """The base class has weighted by 1 / P(own arm) already: propensity_weights does not do so again."""
    rng, kept = np.random.default_rng(0), []
    X, e = np.arange(40.0)[:, None], np.tile([0.2, 0.5, 0.8, 0.5], 10)
    t = np.tile([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0], 5)

    def keep(*args, **options):
        kept.append(make_units(*args, **options))
        return kept[-1]

    monkeypatch.setattr(fit, "make_units", keep)
    short = {"n_members": 2, "max_epochs": 1, "n_draws": 4, "random_state": 0}
    TransTEE(propensity_weights=True, **short).fit(X, rng.normal(size=40), treatment=t, propensity=e)
    own = np.where(t == 1, 1 / e, 1 / (1 - e))
    place = np.argsort(kept[0].X[:, 0])  # back to the order of the rows
    np.testing.assert_allclose(kept[0].weight[place], own / own.mean())


# ---------------------------------------------------------------------- yes/no outcomes and counts
FAMILIES = {"bernoulli": Family("bernoulli"), "negative_binomial": Family("negative_binomial", 0.7)}


def outcomes(rng, eta, family):
    if family == "bernoulli":
        return (rng.random(len(eta)) < expit(eta)).astype(float)
    return rng.poisson(np.exp(eta) * rng.gamma(1 / 0.49, 0.49, len(eta))).astype(float)


def test_log_likelihoods_are_those_of_scipy():
    eta, y = np.linspace(-2, 3, 7), np.array([0.0, 1, 0, 1, 1, 0, 1])
    np.testing.assert_allclose(
        families.log_likelihood(y, eta, FAMILIES["bernoulli"]), bernoulli.logpmf(y, expit(eta))
    )
    counts, r = np.array([0.0, 1, 5, 2, 0, 9, 30]), 1 / 0.49
    ours = families.log_likelihood(counts, eta, FAMILIES["negative_binomial"])
    np.testing.assert_allclose(ours, nbinom.logpmf(counts, r, r / (r + np.exp(eta))))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_loss_is_a_tight_bound_of_the_log_evidence(family):
    """Against the integral over one coefficient, written down: below it, and by less than 3 %."""
    rng, n, offset = np.random.default_rng(0), 60, 0.3
    phi = rng.normal(size=n)
    y = outcomes(rng, offset + phi, family)
    loss = head.LogisticEvidence(1, [3], family, offset).double().train()
    with torch.no_grad():
        loss.scale[:] = np.log(1.5) / head.SPEED
        loss.noise[:] = np.log(0.7) / head.SPEED
    targets = torch.from_numpy(np.column_stack([y, np.ones(n), np.ones(n)]))
    bound = -n * float(loss(torch.from_numpy(phi[None, :, None]), targets))
    b = np.linspace(-8, 8, 4001)
    log_p = families.log_likelihood(y[:, None], offset + phi[:, None] * b, FAMILIES[family]).sum(axis=0)
    evidence = np.log(trapezoid(np.exp(log_p - log_p.max()) * norm.pdf(b, 0, 1.5), b)) + log_p.max()
    assert bound < evidence
    assert evidence - bound < 0.03 * abs(evidence)
    held = torch.from_numpy(np.column_stack([y, np.ones(n), np.arange(n) % 2]))
    beta = head.logistic_posterior(
        phi[1::2, None], y[1::2], np.ones(n // 2), None, np.array([1.5]), FAMILIES[family], 0.0, offset
    ).mean
    expected = -families.log_likelihood(y[::2], offset + phi[::2] * beta[0], FAMILIES[family]).mean()
    assert float(loss.eval()(torch.from_numpy(phi[None, :, None]), held)) == pytest.approx(expected, rel=0.02)


def test_logistic_posterior_is_ridge_logistic_regression_with_its_curvature():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(300, 4))
    y = outcomes(rng, phi @ [1, -1, 0.5, 0], "bernoulli")
    ours = head.logistic_posterior(phi, y, np.ones(300), None, np.full(4, 0.8), FAMILIES["bernoulli"], 0.0, 0.0)
    theirs = LogisticRegression(C=0.64, fit_intercept=False, tol=1e-8).fit(phi, y)
    np.testing.assert_allclose(ours.mean, theirs.coef_[0], atol=1e-4)
    p = expit(phi @ ours.mean)
    np.testing.assert_allclose(
        ours.root @ ours.root.T, np.linalg.inv((phi.T * p * (1 - p)) @ phi + np.eye(4) / 0.64), atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_villages_and_dispersion_are_found_from_predictors_of_held_out_units(family):
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(150), 20)
    eta = 0.5 * rng.normal(size=3000) + 0.5
    y = outcomes(rng, eta + 0.8 * rng.normal(size=150)[groups], family)
    chosen, village = families.likeliest_village(y, eta, np.ones(3000), groups, family)
    assert village == pytest.approx(0.8, abs=0.12)
    assert chosen.dispersion == pytest.approx(FAMILIES[family].dispersion, abs=0.06)
    marginal = families.mean_outcome(np.zeros(1), 0.8, family)[0]
    drawn = 0.8 * rng.normal(size=400_000)
    assert marginal == pytest.approx((expit(drawn) if family == "bernoulli" else np.exp(drawn)).mean(), rel=0.01)
