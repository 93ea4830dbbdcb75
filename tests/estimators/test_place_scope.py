import numpy as np
import pytest

import causalsat
from causalsat import (
    BayesianForestEffect,
    BayesianLinearEffect,
    DoublyRobustEffect,
    GaussianProcessEffect,
    StackedEffect,
    TLearnerEffect,
)
from causalsat.exceptions import DataError, ParameterError

MODELS = [
    BayesianLinearEffect(n_draws=100, n_tune=100, n_chains=2, random_state=0),
    DoublyRobustEffect(n_draws=300),
    GaussianProcessEffect(n_draws=100, n_hyper=4, random_state=0),
    StackedEffect([("one", DoublyRobustEffect()), ("two", DoublyRobustEffect(modifiers=[0]))], n_draws=300),
    TLearnerEffect(n_bootstrap=30),
    BayesianForestEffect(n_draws=100, n_tune=200, n_chains=2, random_state=0),
]
NAMES = [type(model).__name__ for model in MODELS]
S_U = 1.0
LEAST = {"BayesianForestEffect": 0.8}  # a forest follows the villages of the trial a little


@pytest.fixture(scope="module")
def trial():
    """120 villages of 8 people whose own effects are 1 + x0 + u, and 500 places that no trial saw."""
    rng = np.random.default_rng(7)
    village = np.repeat(np.arange(120), 8)
    X, t = rng.standard_normal((120, 2)), (rng.permutation(960) % 2).astype(float)
    own = 1 + X[:, 0] + S_U * rng.standard_normal(120)
    y = 0.5 * rng.standard_normal(120)[village] + t * own[village] + rng.standard_normal(960)
    new = rng.standard_normal((500, 2))
    truth = 1 + new[:, 0] + S_U * rng.standard_normal(500)
    return {"X": X[village], "y": y, "treatment": t, "groups": village}, new, truth


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_the_place_has_the_mean_and_an_interval_that_covers_it(model, trial, tmp_path):
    roles, new, truth = trial
    model.fit(**roles)
    mean, place = model.effect(new), model.effect(new, scope="place")
    np.testing.assert_allclose(place.mean(), mean.mean(), atol=1e-10)
    assert (place.sd() >= mean.sd()).all()
    assert np.median(model.place_deviation_.sd) == pytest.approx(S_U, abs=0.25)
    low, high = place.interval(0.9).T
    assert LEAST.get(type(model).__name__, 0.84) < np.mean((low < truth) & (truth < high)) < 0.96
    low, high = mean.interval(0.9).T
    assert np.mean((low < truth) & (truth < high)) < 0.6  # the interval of the mean is not about it
    assert (mean.scope, place.scope) == ("mean", "place")
    assert "place" in repr(place)
    model.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(causalsat.effect(again, new, scope="place").draws, place.draws)
    np.testing.assert_allclose(model.effect(new[3:5], scope="place").draws, place.draws[:, 3:5], atol=1e-10)


def test_tables_and_averages_have_the_scope(trial):
    roles, new, _ = trial
    model = DoublyRobustEffect().fit(**roles)
    place = model.effect(new, scope="place")
    np.testing.assert_allclose(model.effect_table(new, scope="place")["sd"], place.sd())
    average = model.average_effect(new, scope="place")
    assert average.scope == "place"
    # over 500 places what is their own has averaged out
    assert average.sd()[0] == pytest.approx(model.average_effect(new).sd()[0], abs=0.03)
    assert average.sd()[0] < 0.3 * place.sd().mean()


def test_neither_the_rows_order_nor_labels_move_the_place(trial):
    roles = trial[0]
    order = np.random.default_rng(0).permutation(len(roles["y"]))
    one = DoublyRobustEffect(n_splits=2).fit(**roles).place_deviation_.sd
    moved = {name: values[order] for name, values in roles.items()}
    moved["groups"] = np.array([f"village {119 - g}" for g in moved["groups"]])
    other = DoublyRobustEffect(n_splits=2).fit(**moved).place_deviation_.sd
    np.testing.assert_allclose(np.median(other), np.median(one), rtol=0.05)  # folds are other ones


def test_who_cannot_tell_says_so(trial):
    roles, new, _ = trial
    model = DoublyRobustEffect().fit(**roles)
    with pytest.raises(ParameterError, match=r"'mean'.*'place'"):
        model.effect(new, scope="village")
    alone = DoublyRobustEffect().fit(roles["X"], roles["y"], treatment=roles["treatment"])
    with pytest.raises(DataError, match="groups"):
        alone.effect(new, scope="place")
    assert alone.effect(new).scope == "mean"

    class Other(DoublyRobustEffect):
        _learns_places = False

    with pytest.raises(ParameterError, match=r"a Other, which.*BayesianLinearEffect"):
        Other().fit(**roles).effect(new, scope="place")
    del model.place_deviation_  # as in a file of an earlier version
    with pytest.raises(DataError, match="fit the model again"):
        model.effect(new, scope="place")
