"""A design carries its parts whole: probabilities by stratum, pairs, nesting, and what estimators take from it."""

import warnings

import numpy as np
import pytest

import causalsat
from causalsat.design import adjust_for_design, balancing_weights, make_design
from causalsat.exceptions import DataError, DataWarning, ParameterError, TreatmentError
from causalsat.inference.average_effects import lay_out


def blocked_trial(seed, effects=(0.5, 1.5), shares=(0.25, 0.70), gap=2.0, n_clusters=120, size=6):
    """Clusters in two strata with other treated shares and other levels; effects differ between the strata."""
    rng = np.random.default_rng(seed)
    stratum = np.repeat([0, 1], n_clusters // 2)
    arm = np.zeros(n_clusters)
    for k, share in enumerate(shares):
        members = np.flatnonzero(stratum == k)
        arm[rng.choice(members, round(share * len(members)), replace=False)] = 1
    group = np.repeat(np.arange(n_clusters), size)
    X = rng.standard_normal((n_clusters, 3))[group] + 0.3 * rng.standard_normal((len(group), 3))
    tau = np.asarray(effects)[stratum[group]] + 0.5 * X[:, 1]
    y = gap * stratum[group] + X[:, 0] + arm[group] * tau + 0.5 * rng.standard_normal(n_clusters)[group]
    return X, y + rng.standard_normal(len(group)), arm[group], group, stratum[group], float(tau.mean())


def test_probabilities_are_the_shares_of_clusters_in_the_stratum():
    treatment = [1, 1, 1, 0, 0, 0, 0, 1, 1]
    groups = ["a", "a", "a", "b", "c", "d", "e", "f", "g"]
    strata = ["north"] * 6 + ["south"] * 3
    design = make_design(treatment, groups=groups, strata=strata)
    np.testing.assert_allclose(design.probability, [0.25] * 6 + [2 / 3] * 3)
    np.testing.assert_allclose(make_design(treatment, strata=strata).probability, [0.5] * 6 + [2 / 3] * 3)
    stated = make_design(treatment, groups=groups, strata=strata, propensity=0.4)
    np.testing.assert_allclose(stated.probability, 0.4)
    assert make_design(treatment, groups=groups, strata=strata, randomised=False).probability is None


def test_clusters_within_which_units_were_assigned_count_by_units():
    design = make_design([1, 0, 0, 0, 1, 1], groups=[0, 0, 0, 0, 1, 1], strata=[0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(design.probability, 0.5)


def test_a_part_of_a_design_keeps_the_probabilities_of_the_whole():
    _, _, t, g, s, _ = blocked_trial(0)
    whole = make_design(t, groups=g, strata=s)
    rows = np.flatnonzero(g % 7 != 0)
    part = whole.take(rows)
    np.testing.assert_array_equal(part.probability, whole.probability[rows])
    assert part.clusters.max() + 1 == len(np.unique(g[rows]))


def test_standard_errors_of_pairs_are_clustered_on_the_pair():
    village = np.repeat(np.arange(20), 3)
    pair = village // 2
    design = make_design((village % 2).astype(float), groups=village, strata=pair)
    assert design.is_paired
    assert len(np.unique(design.inference_clusters)) == 10
    blocks = make_design((village % 2).astype(float), groups=village, strata=village // 10)
    assert not blocks.is_paired
    assert len(np.unique(blocks.inference_clusters)) == 20


def test_strata_of_both_kinds_are_pooled_one_by_one_as_in_the_table_of_averages():
    """Two pairs among larger blocks: the pairs are clusters as a whole, the blocks' villages stay their own."""
    t = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1.0])
    strata = np.repeat(["a", "b", "c", "d"], [2, 2, 4, 4])
    design = make_design(t, groups=np.arange(12), strata=strata)
    assert design.is_paired
    np.testing.assert_array_equal(design.inference_clusters, [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    np.testing.assert_array_equal(design.inference_clusters, lay_out(t, strata=strata, clusters=np.arange(12)).pooled)
    seen = make_design(t, groups=np.arange(12), strata=strata, randomised=False)
    np.testing.assert_array_equal(seen.inference_clusters, np.arange(12))


@pytest.mark.parametrize(
    ("roles", "error", "words"),
    [
        ({"groups": [0, 0, 1, 1], "strata": [0, 1, 0, 1]}, DataError, "2 of 2 clusters lie in several strata"),
        ({"groups": [0, 1, 2, 3], "strata": [0, 1, 2, 3]}, DataError, "strata are the clusters themselves"),
        ({"strata": [0, 1, 2, 3]}, DataError, "4 strata for 4 units"),
        ({"strata": ["a", None, "a", "b"]}, DataError, "1 missing labels"),
    ],
)
def test_what_cannot_be_a_design_is_refused(roles, error, words):
    with pytest.raises(error, match=words):
        make_design([0, 1, 0, 1], **roles)


def test_a_stratum_of_one_arm_is_refused_where_its_probability_is_needed():
    design = make_design([0, 0, 0, 1], strata=[0, 0, 1, 1])
    with pytest.raises(TreatmentError, match="1 of 2 strata have one arm only, 2 of 4 units"):
        _ = design.probability


def test_balancing_weights_make_treatment_independent_of_the_stratum():
    _, y, t, g, s, _ = blocked_trial(1)
    design = make_design(t, groups=g, strata=s)
    w = balancing_weights(design)
    shares = [np.average(t[s == k], weights=w[s == k]) for k in (0, 1)]
    np.testing.assert_allclose(shares, 0.5, atol=1e-12)
    outcome, weight = adjust_for_design(y, design)
    assert abs(np.average(outcome[s == 1]) - np.average(outcome[s == 0])) < 1.0  # a gap of 2 and of 0.8 in treatment
    np.testing.assert_allclose(weight.mean(), 1)


LEARNERS = {
    "DoublyRobustEffect": {},
    "BayesianLinearEffect": {"n_chains": 2, "n_draws": 200, "random_state": 0},
    "TLearnerEffect": {"n_bootstrap": 40},
    "XLearnerEffect": {"n_bootstrap": 40},
    "RLearnerEffect": {"n_bootstrap": 40},
    "DRLearnerEffect": {"n_bootstrap": 40},
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", list(LEARNERS))
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_strata_with_other_shares_do_not_move_the_average_effect(name):
    """Without strata the average is off by about 1; the Monte Carlo error of six trials is .05."""
    errors, naive = [], []
    for seed in range(6):
        X, y, t, g, s, truth = blocked_trial(seed)
        make = getattr(causalsat, name)
        labels = np.array(["north", "south"])[s]
        errors.append(float(make(**LEARNERS[name]).fit(X, y, treatment=t, groups=g, strata=labels).effect(X).ate()))
        errors[-1] -= truth
        if seed == 0:
            naive = float(make(**LEARNERS[name]).fit(X, y, treatment=t, groups=g).effect(X).ate()) - truth
    assert abs(np.mean(errors)) < 0.17
    assert naive > 0.5


@pytest.mark.parametrize("name", ["DoublyRobustEffect", "TLearnerEffect"])
def test_a_stated_propensity_is_used(name):
    """Blocks of .2 and .8 and a gap of 10: 6.7 for 1.0 where the probability is ignored."""
    X, y, t, _, s, truth = blocked_trial(2, effects=(1.0, 1.0), shares=(0.2, 0.8), gap=10.0, n_clusters=1200, size=1)
    options = LEARNERS[name]
    found = getattr(causalsat, name)(**options).fit(X, y, treatment=t, propensity=np.where(s == 0, 0.2, 0.8))
    assert abs(float(found.effect(X).ate()) - truth) < 0.5


@pytest.mark.parametrize("name", ["DoublyRobustEffect", "TLearnerEffect"])
def test_units_of_weight_zero_count_for_nothing(name):
    X, y, t, g, _s, _ = blocked_trial(3)
    rng = np.random.default_rng(0)
    more = 300
    frame = np.vstack([X, 5 + rng.standard_normal((more, 3))])
    outcome = np.concatenate([y, 100 * rng.standard_normal(more)])
    roles = {
        "treatment": np.concatenate([t, rng.permutation(more) % 2]),
        "groups": np.concatenate([g, 1000 + np.arange(more)]),
        "sample_weight": np.concatenate([np.ones(len(y)), np.zeros(more)]),
    }
    make = getattr(causalsat, name)
    with_zeros = make(**LEARNERS[name]).fit(frame, outcome, **roles)
    without = make(**LEARNERS[name]).fit(X, y, treatment=t, groups=g)
    assert (with_zeros.n_units_, with_zeros.n_groups_) == (without.n_units_, without.n_groups_)
    np.testing.assert_allclose(with_zeros.effect(X).draws, without.effect(X).draws, rtol=1e-10)


def test_a_design_stands_for_all_roles():
    X, y, t, g, s, _ = blocked_trial(4)
    design = make_design(t, groups=g, strata=s, propensity=np.where(s == 0, 0.25, 0.7))
    model = causalsat.DoublyRobustEffect()
    by_design = model.fit(X, y, design=design).effect(X).draws
    roles = {"treatment": t, "groups": g, "strata": s, "propensity": design.probability}
    np.testing.assert_array_equal(by_design, model.fit(X, y, **roles).effect(X).draws)
    with pytest.raises(ParameterError, match="design= and groups"):
        model.fit(X, y, design=design, groups=g)


def test_a_probability_that_the_shares_contradict_is_told():
    """.01 where half are treated: estimates were six standard errors off without a word."""
    X, y, t, g, _, _ = blocked_trial(5, shares=(0.5, 0.5))
    with pytest.warns(DataWarning, match="stated propensity has mean 0.010, but 0.500"):
        causalsat.DoublyRobustEffect().fit(X, y, treatment=t, groups=g, propensity=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        causalsat.DoublyRobustEffect().fit(X, y, treatment=t, groups=g, propensity=0.45)


def test_one_unit_with_all_the_weight_is_refused():
    """An R-learner answered 126 with a standard error of .002."""
    X, y, t, g, _, _ = blocked_trial(6)
    weights = np.ones(len(y))
    weights[0] = 1e8
    with pytest.raises(DataError, match=r"one of \d+ control units 100.0 % of their weight"):
        causalsat.RLearnerEffect(n_bootstrap=5).fit(X, y, treatment=t, groups=g, sample_weight=weights)
