"""Treatment drawn anew as it was assigned: whole clusters, within strata, in parts where clusters have both arms."""

import numpy as np
import pytest

from causalsat.exceptions import DataError
from causalsat.inference.reassignment import randomisation_units


def test_clusters_are_reassigned_whole_and_within_strata():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    stratum = groups // 20
    t = (np.arange(40) % np.where(np.arange(40) < 20, 2, 4) == 0)[groups].astype(float)
    randomised = randomisation_units(t, groups, stratum)
    assert randomised.description == "treatment of clusters"
    changed = False
    for _ in range(20):
        new = randomised.reassign(t, rng)
        assert all(len(set(new[groups == g])) == 1 for g in range(40))
        assert new[stratum == 0].sum() == t[stratum == 0].sum()
        assert new[stratum == 1].sum() == t[stratum == 1].sum()
        changed |= bool((new != t).any())
    assert changed


def test_designs_with_both_treatments_in_a_cluster():
    t = np.array([0, 0, 1, 1, 0, 1, 1, 1.0])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    randomised = randomisation_units(t, groups, np.zeros(8, dtype=int))
    assert len(set(randomised.unit)) == 5  # the mixed cluster in two parts
    assert "two parts" in randomised.description
    mixed = np.tile([0.0, 1.0], 4)
    randomised = randomisation_units(mixed, groups, np.zeros(8, dtype=int))
    assert randomised.description == "treatment of units within clusters"
    new = randomised.reassign(mixed, np.random.default_rng(0))
    assert [new[groups == g].sum() for g in range(4)] == [1, 1, 1, 1]
    with pytest.raises(DataError, match="lie in several strata"):
        randomisation_units(t, groups, np.arange(8) % 2)


def test_units_within_clusters_stay_in_their_strata():
    rng = np.random.default_rng(0)
    groups, sex = np.repeat(np.arange(6), 20), np.tile([0, 1], 60)
    t = (rng.random(120) < np.where(sex, 0.8, 0.2)).astype(float)
    randomised = randomisation_units(t, groups, sex)
    assert randomised.description == "treatment of units within clusters and strata"
    new = randomised.reassign(t, rng)
    assert (new != t).any()
    np.testing.assert_array_equal(np.bincount(2 * groups + sex, new), np.bincount(2 * groups + sex, t))
