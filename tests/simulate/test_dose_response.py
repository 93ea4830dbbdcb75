"""The simulated doses, dosages and graphs follow their papers' equations."""

import numpy as np
import pytest

from causalsat.exceptions import DataError, ParameterError
from causalsat.simulate import dose_response
from causalsat.simulate.dose_response import continuous_ihdp, dosage_trial, graph_trial, low_rank_covariates, simu1


def test_simu1_at_a_unit_computed_by_hand():
    trial = simu1(4000, np.random.default_rng(0))
    x = np.array([[0.5, 0.0, 0.2, 1.0, 0.3, 0.8]])
    curve = 0.25**2 + 4 * 0.8**3 * np.sin(1.0) / (1 + 2 * 0.2**2)
    assert trial.response(x, np.array([0.25]))[0] == pytest.approx(np.cos(2 * np.pi * -0.25) * curve, abs=1e-12)
    assert trial.response(x, np.array([0.75]))[0] == pytest.approx(np.cos(np.pi / 2) * curve, abs=1e-12)
    assert np.std(trial.y - trial.response(trial.X, trial.dose)) == pytest.approx(0.5, abs=0.02)
    assert 0 < trial.dose.min() < 0.1 < 0.9 < trial.dose.max() < 1


def test_scale_and_reach_stretch_the_dose_only():
    plain, wide = simu1(50, np.random.default_rng(1)), simu1(50, np.random.default_rng(1), scale=5.0, reach=0.8)
    np.testing.assert_allclose(wide.dose, 4 * plain.dose)
    np.testing.assert_allclose(wide.average(5 * np.array([0.2, 0.9])), plain.average(np.array([0.2, 0.9])))


def test_continuous_ihdp_on_made_up_covariates():
    rng = np.random.default_rng(0)
    X = rng.random((600, 25))
    trial = continuous_ihdp(X, np.random.default_rng(1))
    assert sorted(map(tuple, trial.X)) == sorted(map(tuple, X))
    m = X[:, [3, *range(6, 15)]].mean()
    row = trial.X[:1]
    level = np.tanh(5 * (row[0, [3, *range(6, 15)]].mean() - m))
    level += np.exp(0.2 * (row[0, 0] - row[0, 5])) / (0.1 + min(row[0, 1], row[0, 2], row[0, 4]))
    expected = np.sin(3 * np.pi * 0.4) / 0.8 * level
    assert trial.response(row, np.array([0.4]))[0] == pytest.approx(expected)
    with pytest.raises(DataError, match="25 covariates"):
        continuous_ihdp(X[:, :5], rng)


def test_dosages_lie_round_the_best_one():
    rng = np.random.default_rng(0)
    trial = dosage_trial(low_rank_covariates(3000, 30, 4, rng), rng, noise=0.3)
    assert np.linalg.norm(trial.X, axis=1) == pytest.approx(1)
    v = trial.vectors[2]
    one, two = trial.X[0] @ v[1], trial.X[0] @ v[2]
    expected = 10 * (trial.X[0] @ v[0] + 12 * (one * 0.3 - two * 0.09))
    assert trial.response(trial.X[:1], 2, np.array([0.3]))[0] == pytest.approx(expected)
    own = np.choose(trial.treatment.astype(int), [trial.response(trial.X, w, trial.dosage) for w in range(3)])
    assert np.std(trial.y - own) == pytest.approx(0.3, abs=0.02)
    third = trial.treatment == 2
    best = np.clip(trial.X @ v[1] / (2 * trial.X @ v[2]), 0.05, 1)[third]
    assert np.corrcoef(best, trial.dosage[third])[0, 1] > 0
    assert trial.dosage[third].mean() == pytest.approx((2 / (2 + 1 / best)).mean(), abs=0.03)


def test_graph_statistics_enter_the_outcome():
    nx = pytest.importorskip("networkx")
    trial = graph_trial(400, 5, np.random.default_rng(0), nodes=(8, 16))
    np.testing.assert_allclose(trial.chance.sum(axis=1), 1)
    assert np.std(trial.y - trial.mean[np.arange(400), trial.treatment.astype(int)]) == pytest.approx(1, abs=0.1)
    graph = nx.from_numpy_array(trial.graphs[0])
    graph.remove_nodes_from(list(nx.isolates(graph)))
    path, tied = nx.average_shortest_path_length(graph), nx.node_connectivity(graph)
    shape = np.column_stack([100 * trial.X, 0.2 * path**2 * trial.X, tied * trial.X])
    rest = trial.mean[:, 0] - shape @ np.linalg.lstsq(shape, trial.mean[:, 0], rcond=None)[0]
    assert np.abs(rest).max() < 1e-8
    with pytest.raises(ParameterError, match="nodes"):
        graph_trial(10, 2, np.random.default_rng(0), nodes=(3, 5))


def test_everything_is_exported():
    assert set(dose_response.__all__) >= {"DoseTrial", "simu1", "continuous_ihdp", "dosage_trial", "graph_trial"}
