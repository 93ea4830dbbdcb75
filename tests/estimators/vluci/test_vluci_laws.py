"""Laws of noise and confounder: integrated, differentiated, learned, and what they save from being misread."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import expit
from scipy.stats import norm

from causalsat import VLUCI, DoublyRobustEffect
from causalsat.estimators.vluci.basis import learn_basis
from causalsat.estimators.vluci.fit import make_design
from causalsat.estimators.vluci.laws import Laws, components, improve, yes_no
from causalsat.estimators.vluci.likelihood import Link, log_joint, unit_terms, unit_values
from causalsat.estimators.vluci.posterior import draw_confounder
from causalsat.simulate import hidden_confounding

SKEWED = components(np.array([-0.5, 2.0, 0.5]))
OTHER = components(np.array([0.3, -1.0, -0.2]))
U = np.linspace(-12, 12, 24_001)
LAWS = {
    "skewed noise": Link(1.4, (0.5, 0.8), SKEWED),
    "noise by arm": Link(1.4, (0.5, 0.8), SKEWED, OTHER),
    "yes/no": Link(1.4, (0.5, 0.8), confounder=yes_no(-1.0)),
    "all": Link(1.4, (-0.5, 0.8), SKEWED, OTHER, yes_no(0.7)),
}


def brute_force(t, y, f, link):
    """Log of the sum or integral over U of p(U) p(T | U) p(Y | T, U), written down directly."""
    rho, sd = np.where(t > 0, link.rho[1], link.rho[0])[:, None], np.exp(f[2])[:, None]
    points = np.array([mean for _, mean, _ in link.confounder]) if link.confounder[0][2] == 0 else U
    p = expit(np.sqrt(1 + link.beta**2 * 3 / np.pi**2) * f[0][:, None] + link.beta * points)
    rest = sd * np.sqrt(1 - rho**2)
    e = (y[:, None] - f[1][:, None] - rho * sd * points) / rest
    by_arm = [sum(w * norm.pdf(e, m, s) for w, m, s in law) for law in (link.noise, link.noise_treated or link.noise)]
    density = np.where(t[:, None] == 1, p * by_arm[1], (1 - p) * by_arm[0]) / rest
    if points is U:
        return np.log(trapezoid(norm.pdf(U) * density, U))
    return np.log(density @ [w for w, _, _ in link.confounder])


@pytest.mark.parametrize("name", LAWS)
def test_laws_are_integrated_over_and_differentiated(name):
    """The integral written down, and finite differences."""
    link, rng, h = LAWS[name], np.random.default_rng(1), 1e-5
    t, y, f = np.arange(9) % 2.0, rng.standard_normal(9), tuple(0.5 * rng.standard_normal((3, 9)))
    terms = unit_terms(t, y, f, link, (True, False))
    np.testing.assert_allclose(terms.value - 0.5 * np.log(2 * np.pi), brute_force(t, y, f, link), atol=2e-4)
    np.testing.assert_allclose(unit_values(t, y, f, link), terms.value, atol=1e-12)
    for i in range(3):
        up, down = (
            unit_terms(t, y, tuple(v + s * h * (j == i) for j, v in enumerate(f)), link, (True, False))
            for s in (1, -1)
        )
        np.testing.assert_allclose(terms.first[i], (up.value - down.value) / (2 * h), atol=1e-7)
        np.testing.assert_allclose(terms.second[i], (up.first - down.first) / (2 * h), atol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_joint_density_of_each_component_adds_up_to_the_likelihood(name):
    link, rng = LAWS[name], np.random.default_rng(2)
    t, y, f = np.arange(9) % 2.0, rng.standard_normal(9), tuple(0.5 * rng.standard_normal((3, 9)))
    total = 0.0
    for weight, mean, sd in link.confounder:
        joint = log_joint(U, t, y, f, link, (True, False), (mean, sd))
        total = total + weight * trapezoid(np.exp(joint), U)
    rest = np.log(np.sqrt(1 - np.where(t > 0, link.rho[1], link.rho[0]) ** 2))
    value = unit_terms(t, y, f, link, (True, False)).value
    assert np.ptp(np.log(total) - value - f[2] - rest) < 1e-3


def test_draws_of_a_yes_no_confounder_follow_its_posterior():
    """Units simulated from the model: draws are its two values, yes as often as given T and Y it is."""
    rng = np.random.default_rng(1)
    n, law = 4000, yes_no(-1.0)
    places, share = [mean for _, mean, _ in law], law[1][0]
    u = np.where(rng.random(n) < share, places[1], places[0])
    X, link = rng.standard_normal((n, 2)), Link(2.0, (0.8, 0.8), confounder=law)
    t = (rng.random(n) < expit(2 * u)).astype(float)
    y = 0.8 * u + 0.6 * rng.standard_normal(n)
    basis = learn_basis(X)
    design = make_design(basis.apply(X), basis.kinds, t, y, np.ones(n), (True, False))
    draws = draw_confounder(design, np.zeros(len(design.group) + 2), link, rng.random(n))
    np.testing.assert_allclose(np.unique(draws), places)
    assert draws.mean() == pytest.approx(0, abs=0.05)
    yes = [expit(s * 2 * place) for s, place in ((2 * t - 1, places[0]), (2 * t - 1, places[1]))]
    both = [
        w * p * norm.pdf(y, 0.8 * place, 0.6) for w, p, place in zip((1 - share, share), yes, places, strict=True)
    ]
    chance = both[1] / (both[0] + both[1])
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        among = (chance >= low) & (chance < high)
        error = np.sqrt(0.25 / among.sum())
        assert np.mean(draws[among] > 0) == pytest.approx(chance[among].mean(), abs=4 * error)


def test_shape_of_the_noise_is_learned_and_an_outcome_without_noise_has_none():
    rng = np.random.default_rng(0)
    e = rng.exponential(size=4000) - 1

    def values(laws):
        return np.log(sum(w * norm.pdf(e, m, s) for w, m, s in components(laws.noise[0])))

    laws = Laws(np.array([[-1.0, 1.5, 0.4]]))
    for _ in range(40):
        laws, slopes = improve(values, np.ones(4000), laws)
    w, m, s = np.array(components(laws.noise[0])).T
    skewness = w @ (m**3 + 3 * m * s**2)
    assert values(laws).sum() - norm.logpdf(e).sum() > 500
    assert 1.0 < skewness < 2.5  # of the exponential distribution: 2
    assert slopes.shape == (4000, 3)
    stuck, none = improve(lambda laws: 1e9 * laws.vector[0] * np.ones(5), np.ones(5), laws)
    np.testing.assert_array_equal(stuck.vector, laws.vector)
    assert not none.any()


def test_share_of_a_yes_no_confounder_is_learned():
    rng = np.random.default_rng(0)
    y = np.where(rng.random(3000) < 0.2, 2.0, -0.5) + 0.3 * rng.standard_normal(3000)

    def values(laws):
        return np.log(sum(w * norm.pdf(y, place, 0.3) for w, place, _ in yes_no(float(laws.share[0]))))

    laws = Laws(share=np.zeros(1))
    for _ in range(20):
        laws, _ = improve(values, np.ones(3000), laws)
    assert expit(laws.share[0]) == pytest.approx(0.2, abs=0.02)
    _, (share, place, _) = yes_no(float(laws.share[0]))
    assert share * place**2 + (1 - share) * yes_no(float(laws.share[0]))[0][1] ** 2 == pytest.approx(1)


# ---------------------------------------------------------------------- what would be misread under one law
def study(seed, *, law="none", noise="normal", n=500):
    """A study whose effect is 1: a confounder of some law, or noise that is skewed in one arm."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 5))
    L = {"yes/no": np.where(rng.random(n) < 0.5, 1.0, -1.0), "none": np.zeros(n)}[law]
    t = (rng.random(n) < expit(X[:, 0] + 0.5 * X[:, 1] + 2 * L)).astype(float)
    e = rng.standard_normal(n)
    if noise == "one arm":
        e = np.where(t == 1, rng.exponential(size=n) - 1, e)
    return X, t, X[:, 0] + X[:, 2] + 0.5 * X[:, 1] ** 2 + t + 1.5 * L + e


def estimates(X, t, y, **options):
    """Average effect with its 90 % interval by VLUCI and by its base, and the fitted model."""
    base = DoublyRobustEffect(propensity_model="logistic")
    model = VLUCI(base, **{"n_imputations": 6, "n_grid": 7, "n_draws": 600, **options}).fit(X, y, treatment=t)
    alone = base.fit(X, y, treatment=t).effect(X).ate()
    own = model.effect(X).ate()
    return (float(own), *own.interval(0.9)[0]), (float(alone), *alone.interval(0.9)[0]), model


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_a_yes_no_confounder_is_not_read_backwards():
    """A normal law takes the two lumps of each arm for a confounder of the other sign, with certainty."""
    (ate, low, high), (alone, *_), model = estimates(*study(0, law="yes/no"))
    assert alone > 2.5  # the effect is 1
    assert low <= 1.0 <= high
    assert abs(ate - 1) < 0.5 * abs(alone - 1)
    assert model.engine_.grid.share_of(confounder="yes/no") > 0.9
    assert "yes/no" in str(model.summary())
    laws = model.laws()
    assert laws["probability"].sum() == pytest.approx(1)
    best = laws["probability"].idxmax()
    assert best == ("yes/no", "alike")
    assert laws.loc[best, "lower"] <= 1.0 <= laws.loc[best, "upper"]
    region = model.likelihood_region(0.9)
    assert region.lower <= 1.0 <= region.upper


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_noise_that_is_skewed_in_one_arm_is_not_taken_for_a_confounder_surely():
    for seed in (0, 2):
        (ate, low, high), (alone, *_), model = estimates(*study(seed, noise="one arm"))
        assert low <= 1.0 <= high
        assert abs(ate - 1) < abs(alone - 1) + 0.2
        assert model.probability_ < 0.9


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_it_is_never_less_true_than_its_base_and_surer():
    """Twelve studies of three laws: where the estimate is further off, the interval is wider, and mostly covers."""
    covered = []
    for law, noise in (("yes/no", "normal"), ("none", "one arm"), ("none", "normal")):
        for seed in range(10, 14):
            own, alone, _ = estimates(*study(seed, law=law, noise=noise))
            covered.append(own[1] <= 1.0 <= own[2])
            worse = abs(own[0] - 1) > abs(alone[0] - 1)
            assert not worse or own[2] - own[1] > alone[2] - alone[1]
    assert sum(covered) >= 10


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_skewed_noise_is_not_taken_for_a_confounder():
    """Centred exponential noise, no confounder: normal noise in the model fakes one, a learned shape does not."""
    error, found = {"normal": [], "flexible": []}, {"normal": [], "flexible": []}
    base = DoublyRobustEffect(propensity_model="logistic")
    for seed in range(3):
        w = hidden_confounding(1500, strength=0.0, observed=2.0, n_features=5, seed=seed)
        y = w.outcome + 1.5 * (np.random.default_rng(seed).exponential(size=len(w.X)) - 1)
        for noise, errors in error.items():
            model = VLUCI(base, noise=noise, n_imputations=6, n_grid=5).fit(w.X, y, treatment=w.treatment)
            errors.append(abs(float(model.ate_draws_.mean()) - w.tau.mean()))
            found[noise].append(model.probability_)
    assert np.mean(found["normal"]) > 0.5
    assert np.mean(found["flexible"]) < 0.15
    assert np.mean(error["normal"]) > 0.6
    assert np.mean(error["flexible"]) < 0.25
