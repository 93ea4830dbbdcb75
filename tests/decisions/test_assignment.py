"""Assignment: probabilities, balance, order of rows, and what an analysis later reads."""

import itertools

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.decisions.assignment import draw_assignments, mahalanobis
from causalsat.evaluation import permutation_test
from causalsat.exceptions import DataError, DataWarning, ParameterError

RNG = np.random.default_rng(3)
FEATURES = RNG.standard_normal((60, 4)) ** 3


def villages(n=60):
    labels = [f"v{k:03d}" for k in range(n)]
    return pd.DataFrame(
        {"district": np.arange(n) % 3, "size": RNG.gamma(2.0, 50.0, n)}, index=pd.Index(labels, name="village")
    )


def test_probabilities_are_one_half_and_images_are_balanced():
    plan = causalsat.assign(villages(), FEATURES, strata="district", share=0.5, acceptance=0.02, seed=1)
    assert (plan.probability == 0.5).all()
    assert plan.table.groupby("stratum")["assignment"].sum().tolist() == [10, 10, 10]
    assert (plan.balance["sd_after"] < 0.5 * plan.balance["sd_before"]).all()
    assert plan.imbalance <= plan.threshold
    np.testing.assert_array_equal(plan.design.probability, 0.5)
    np.testing.assert_array_equal(plan.design.treatment, plan.assignment)


def test_threshold_is_the_quantile_of_chi_squared():
    """Large strata: the distance is chi-squared with as many degrees as features (Morgan and Rubin, theorem 3.1)."""
    from scipy.stats import chi2

    features = np.random.default_rng(0).standard_normal((300, 4))
    plan = causalsat.assign(pd.DataFrame(index=range(300)), features, acceptance=0.1, seed=0)
    assert plan.threshold == pytest.approx(chi2(4).ppf(0.1), rel=0.08)


def test_variance_falls_as_theory_says():
    """Morgan and Rubin, theorem 3.1: by 1 - P(chi2(k + 2) <= a) / P(chi2(k) <= a)."""
    from scipy.stats import chi2

    features = np.random.default_rng(1).standard_normal((200, 3))
    plan = causalsat.assign(pd.DataFrame(index=range(200)), features, acceptance=0.1, n_draws=40_000, seed=0)
    expected = chi2(5).cdf(chi2(3).ppf(0.1)) / 0.1
    ratio = (plan.balance["sd_after"] ** 2).sum() / (plan.balance["sd_before"] ** 2).sum()
    assert ratio == pytest.approx(expected, rel=0.08)


def test_distance_equals_that_of_all_assignments():
    """Six villages, all 20 halves: V of the closed form is the covariance over them, so the mean distance is k."""
    z = np.random.default_rng(2).standard_normal((6, 2))
    z -= z.mean(axis=0)
    drawn = np.array([[k in half for k in range(6)] for half in itertools.combinations(range(6), 3)])
    assert mahalanobis(drawn, z, np.zeros(6, dtype=int), 0.5).mean() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.62])
def test_chance_rounds_so_that_every_village_has_the_share(share):
    block = np.repeat([0, 1, 2], [7, 4, 5])
    drawn = draw_assignments(block, share, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), share, atol=5 * 0.5 / np.sqrt(20_000))
    counts = drawn[:, :7].sum(axis=1)
    assert set(counts) <= {int(7 * share), int(7 * share) + 1}


def test_unequal_share_has_the_probabilities_of_its_accepted_assignments():
    """An outlier is treated less often than the share, and the saved probability says so."""
    features = np.random.default_rng(0).standard_normal((40, 1))
    features[0] = 4.0
    plan = causalsat.assign(pd.DataFrame(index=range(40)), features, share=0.25, acceptance=0.05, seed=2)
    assert plan.probability.mean() == pytest.approx(0.25, abs=1e-9)
    assert plan.probability[0] < 0.2
    np.testing.assert_allclose(plan.probability, plan.accepted.mean(axis=0))
    features[0] = 40.0
    with pytest.raises(DataError, match="1 of 40 villages are always or never treated"):
        causalsat.assign(pd.DataFrame(index=range(40)), features, share=0.25, acceptance=0.05, seed=2)


def test_order_of_rows_does_not_matter_and_the_seed_does():
    table = villages()
    shuffled = np.random.default_rng(9).permutation(60)
    first = causalsat.assign(table, FEATURES, strata="district", seed=4)
    again = causalsat.assign(table.iloc[shuffled], FEATURES[shuffled], strata="district", seed=4)
    pd.testing.assert_series_equal(first.assignment, again.assignment.loc[table.index])
    pd.testing.assert_series_equal(first.probability, again.probability.loc[table.index])
    assert not first.assignment.equals(causalsat.assign(table, FEATURES, strata="district", seed=5).assignment)


def test_assignment_comes_back_from_its_file_as_a_study(tmp_path):
    plan = causalsat.assign(villages(), FEATURES, strata="district", balance_on=["images", "size"], seed=1)
    path = plan.write(tmp_path / "assignment.csv")
    back = pd.read_csv(path, index_col="village")
    assert back["assignment"].tolist() == plan.assignment.tolist()
    outcome = np.random.default_rng(0).standard_normal(60)
    test = permutation_test(FEATURES, outcome, design=plan.design, n_permutations=19, progress=False)
    assert 0 < test.p_value <= 1
    study = causalsat.Study(
        back.assign(y=outcome, lon=32.0, lat=1.0), outcome="y", treatment="assignment", strata="stratum",
        propensity="probability", lon="lon", lat="lat",
    )  # fmt: skip
    np.testing.assert_array_equal(study.design.probability, plan.design.probability)


def test_refusals():
    table = villages()
    with pytest.raises(DataError, match="index repeats"):
        causalsat.assign(pd.concat([table, table]), None, balance_on=None)
    with pytest.raises(ParameterError, match="without imagery"):
        causalsat.assign(table)
    with pytest.raises(ParameterError, match="n_draws=5000 or more"):
        causalsat.assign(table, FEATURES, acceptance=0.01, n_draws=1000)
    with pytest.raises(KeyError, match="no column of the villages"):
        causalsat.assign(table, balance_on=["siez"])
    with pytest.warns(DataWarning, match="single village"):
        causalsat.assign(table.iloc[:5], balance_on=None, strata=["a", "a", "b", "b", "c"])


def test_one_village_to_a_stratum_and_mixed_labels_work():
    table = pd.DataFrame({"size": [1.0, 2.0, 5.0, 9.0]}, index=[1, "b", 2, "a"])
    plan = causalsat.assign(table, balance_on=None, strata=["p", "p", "q", "q"], seed=0)
    assert plan.assignment.groupby([0, 0, 1, 1]).sum().tolist() == [1, 1]
    assert "villages treated" in str(plan)


def test_the_test_after_re_randomisation_is_exact_where_free_permutation_is_conservative():
    """Outcomes follow the balanced feature and nobody has an effect: 300 trials of 30 villages, level .1."""
    rng = np.random.default_rng(0)
    exact, free = [], []
    for seed in range(300):
        size = rng.standard_normal(30)
        frame = pd.DataFrame({"size": size})
        plan = causalsat.assign(frame, balance_on=["size"], acceptance=0.1, n_draws=990, seed=seed)
        y = 2 * size + rng.standard_normal(30)
        exact.append(plan.test(y).p_value <= 0.1)
        t = plan.assignment.to_numpy(dtype=bool)
        own = y[t].mean() - y[~t].mean()
        drawn = [rng.permutation(t) for _ in range(99)]
        larger = sum(abs(y[d].mean() - y[~d].mean()) >= abs(own) for d in drawn)
        free.append((1 + larger) / 100 <= 0.1)
    error = np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(exact) == pytest.approx(0.1, abs=3 * error)
    assert np.mean(free) < 0.1 - 3 * error


def test_people_are_tested_by_their_villages():
    plan = causalsat.assign(villages(), FEATURES, strata="district", seed=1)
    rng = np.random.default_rng(1)
    village = rng.choice(plan.assignment.index.to_numpy(), 400)
    t = plan.assignment.loc[village].to_numpy()
    y = 0.8 * t + rng.standard_normal(400)
    found = plan.test(y, village)
    assert found.estimate == pytest.approx(y[t == 1].mean() - y[t == 0].mean())  # equal probabilities
    assert found.p_value < 0.01
    drawn = plan.assignments_of(village)
    assert drawn.shape == (found.n_assignments, 400)
    assert (drawn == t.astype(bool)).all(axis=1).sum() >= 1
    latents = FEATURES[plan.assignment.index.get_indexer(village)]
    test = permutation_test(latents, y, t, groups=village, assignments=drawn, n_permutations=39, progress=False)
    assert "assignments given" in test.method
    assert 0 < test.p_value <= 1
    with pytest.raises(DataError, match="not assigned"):
        plan.test(y, [*village[:-1], "elsewhere"])
    with pytest.raises(DataError, match="finite numbers"):
        plan.test(np.r_[y[:-1], np.nan], village)
    with pytest.raises(DataError, match="assignments of shape"):
        permutation_test(latents, y, t, groups=village, assignments=drawn[:, :5], progress=False)
