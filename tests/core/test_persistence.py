"""Saving and loading: equal predictions, no code run, clear refusals."""

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import causalsat
from causalsat.exceptions import ModelFileError
from causalsat.persistence import CHECKSUM, _checksum, _decode, _encode, digest, load, save

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))


def test_scikit_learn_pipeline_round_trip(tmp_path):
    model = make_pipeline(
        make_column_transformer((StandardScaler(), [0, 1]), remainder="passthrough"), PCA(2), RidgeCV()
    )
    model.fit(X, X[:, 0] - X[:, 2])
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(model.predict(X), again.predict(X))
    assert digest(again) == digest(model)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        float("inf"),
        "text",
        (1, [2, {"a": (3,)}]),
        {1, 2},
        frozenset({"x"}),
        slice(1, None, 2),
        Path("a/b"),
        np.float32(1.5),
        np.int64(7),
        np.dtype("float32"),
        {"key": np.arange(3), 4: "int key"},
    ],
)
def test_values_come_back_as_they_were(value):
    arrays = {}
    back = _decode(json.loads(json.dumps(_encode(value, arrays, "v"))), arrays)
    assert type(back) is type(value) or isinstance(value, Path)
    np.testing.assert_equal(back, value)


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((0, 4)),
        np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.array(["a", None, 1.5], dtype=object),
        np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
        np.arange(3, dtype=">f8"),
    ],
)
def test_arrays_come_back_as_they_were(array):
    arrays = {}
    back = _decode(json.loads(json.dumps(_encode(array, arrays, "v"))), arrays)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.shape == array.shape
    assert back.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc
    np.testing.assert_array_equal(back, array)


def test_a_raster_in_memory_comes_back():
    raster = xr.DataArray(np.ones((1, 2, 2)), dims=("band", "y", "x"), coords={"band": ["red"], "y": [1.0, 0.0]})
    arrays = {}
    xr.testing.assert_identical(_decode(_encode(raster, arrays, "v"), arrays), raster)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (FunctionTransformer(np.log), "FunctionTransformer.func"),
        (RidgeCV(cv=np.random.RandomState(0)), "integer random_state"),
        (RandomForestRegressor(n_estimators=2).fit(X, X[:, 0]), "tree_"),
        (object(), "object"),
    ],
)
def test_what_needs_pickle_is_refused_by_name(model, says, tmp_path):
    with pytest.raises(ModelFileError, match=says):
        save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@dataclass
class Outsider:
    """A dataclass of somebody else's module."""

    x: int = 1


class Bomb:
    """Pickle that would run code."""

    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def _file(tmp_path, header):
    path = tmp_path / "evil"
    save_file({}, path, metadata={"causalsat": header})
    return path


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:Popen",
        "causalsat.cli:main",
        "causalsat.persistence:Path",
        "sklearn.tests.test_base:MyEstimator",
        "sklearn:show_versions",
        "causalsat..os:system",
        f"{Outsider.__module__}:Outsider",
        "",
    ],
)
def test_classes_from_elsewhere_are_not_touched(name, tmp_path):
    header = json.dumps({"format": 1, "model": {"$object": name, "state": {}}})
    with pytest.raises(ModelFileError, match="names the class"):
        load(_file(tmp_path, header))


@pytest.mark.parametrize(
    "header",
    [
        "not json",
        "[]",
        "{}",
        '{"format": 99}',
        '{"format": 1}',
        '{"format": 1, "model": [1]}',
        '{"format": 1, "model": {"$nope": 1}}',
        '{"format": 1, "model": {"$array": "absent"}}',
        '{"format": 1, "model": {"$object": "sklearn.linear_model._ridge:Ridge", "state": {"__class__": 1}}}',
        '{"format": 1, "model": ' + '{"$list": [' * 100_000 + "]}" * 100_000 + "}",
    ],
)
def test_damaged_headers_are_refused(header, tmp_path):
    with pytest.raises(ModelFileError):
        load(_file(tmp_path, header))


def test_pickles_and_other_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError, match="cannot be read"):
        load("model.pkl")
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(ModelFileError, match="no file"):
        load("absent")
    save_file({"w": np.ones(2)}, tmp_path / "plain")
    with pytest.raises(ModelFileError, match="without a causalsat header"):
        load("plain")


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "m"
    save(StandardScaler().fit(X), path)
    data = path.read_bytes()
    for end in range(0, len(data), max(1, len(data) // 25)):
        path.write_bytes(data[:end])
        with pytest.raises(ModelFileError):
            load(path)


def test_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m"
    save(StandardScaler().fit(X), path)
    before = path.read_bytes()
    with pytest.raises(ModelFileError):
        causalsat.save(FunctionTransformer(np.log), path)
    assert path.read_bytes() == before


# ---------------------------------------------------------------------- files with a right checksum and wrong parts
def _parts(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["causalsat"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _write(path, header, arrays):
    text = json.dumps(header)
    save_file(arrays, path, metadata={"causalsat": text, CHECKSUM: _checksum(text, arrays)})


def _fitted(kind):
    treatment, y = np.arange(40) % 2, X[:, 0] + np.arange(40) % 2
    if kind == "pipeline":
        return make_pipeline(StandardScaler(), causalsat.DoublyRobustEffect(random_state=0)).fit(
            X, y, doublyrobusteffect__treatment=treatment
        )
    estimators = {
        "linear": causalsat.BayesianLinearEffect(n_draws=20, n_chains=1, random_state=0),
        "robust": causalsat.DoublyRobustEffect(random_state=0),
        "learner": causalsat.TLearnerEffect(n_bootstrap=5, random_state=0),
        "process": causalsat.GaussianProcessEffect(n_draws=20, random_state=0),
    }
    return estimators[kind].fit(X, y, treatment=treatment)


def _states(node):
    """Every state of an object in a header."""
    if isinstance(node, dict):
        if "$object" in node:
            yield node["state"]
        for value in node.values():
            yield from _states(value)
    elif isinstance(node, list):
        for value in node:
            yield from _states(value)


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
@pytest.mark.parametrize("kind", ["linear", "robust", "learner", "process", "pipeline"])
@pytest.mark.parametrize("listed", [True, False], ids=["with the list of arrays", "of before there was one"])
def test_missing_and_misshapen_parts_are_refused_on_loading(kind, listed, tmp_path):
    """What loads gives the predictions of before; everything else is one error on loading."""
    model = _fitted(kind)
    save(model, tmp_path / "m")
    header, arrays = _parts(tmp_path / "m")
    if not listed:
        del header["arrays"]
    expected, refused, loaded = model.predict(X), 0, 0
    rng = np.random.default_rng(0)
    for number in range(60):
        changed, kept = json.loads(json.dumps(header)), dict(arrays)
        if number % 2:
            name = rng.choice(sorted(n for n, a in arrays.items() if a.size > 1))
            how = (lambda a: a[:-1], lambda a: np.concatenate([a, a[-1:]]), lambda a: a.reshape(1, *a.shape))[
                number % 3
            ]
            kept[name] = np.ascontiguousarray(how(kept[name]))
        else:
            states = [state for state in _states(changed["model"]) if state]
            state = states[rng.integers(len(states))]
            del state[sorted(state)[rng.integers(len(state))]]
        _write(tmp_path / "changed", changed, kept)
        try:
            again = load(tmp_path / "changed")
        except ModelFileError as error:
            assert "What to do: " in str(error)
            refused += 1
            continue
        assert not (listed and number % 2)
        loaded += 1
        np.testing.assert_allclose(again.predict(X), expected, atol=0.25)  # a draw fewer moves a mean a little
    assert refused >= 20  # the others are what predictions do not need: candidates of a penalty, names
    assert refused + loaded == 60


@pytest.mark.parametrize("kind", ["robust", "learner", "pipeline"])
@pytest.mark.parametrize("name", ["predict", "fit", "get_params", "set_params", "__class__", "__dict__", "a b"])
def test_no_attribute_of_a_file_takes_the_place_of_a_method(kind, name, tmp_path):
    save(_fitted(kind), tmp_path / "m")
    header, arrays = _parts(tmp_path / "m")
    next(_states(header["model"]))[name] = "x"
    _write(tmp_path / "changed", header, arrays)
    with pytest.raises(ModelFileError, match=f"attribute '{name}' of a"):
        load(tmp_path / "changed")


def test_a_part_that_fits_two_units_only_is_refused(tmp_path):
    """Intercepts of scikit-learn's regressions are numbers: two of them would go to one unit each."""
    model = causalsat.RLearnerEffect(final_model=RidgeCV(), n_bootstrap=5, random_state=0)
    save(model.fit(X, X[:, 0] + np.arange(40) % 2, treatment=np.arange(40) % 2), tmp_path / "m")
    header, arrays = _parts(tmp_path / "m")
    del header["arrays"]
    expected, outcomes = load(tmp_path / "m").predict(X), []
    for name in sorted(n for n, a in arrays.items() if a.ndim == 0):
        _write(tmp_path / "changed", header, {**arrays, name: np.repeat(arrays[name], 2)})
        try:
            np.testing.assert_allclose(load(tmp_path / "changed").predict(X), expected)
        except ModelFileError as error:
            outcomes.append(str(error))
    assert outcomes


@pytest.mark.parametrize(
    ("version", "loads"), [("0.0.9", True), ("0.1.0", True), ("0.2.0", False), ("1.0.0.dev1", False)]
)
def test_files_of_a_later_version_are_refused(version, loads, tmp_path):
    save(StandardScaler().fit(X), tmp_path / "m")
    header, arrays = _parts(tmp_path / "m")
    _write(tmp_path / "m", {**header, "version": version}, arrays)
    if loads:
        assert load(tmp_path / "m").n_features_in_ == 3
        return
    with pytest.raises(ModelFileError, match=rf"saved by causalsat {version}.*upgrade causalsat"):
        load(tmp_path / "m")


def test_a_folder_of_pickles_survives_neither_saving_nor_loading(tmp_path):
    """Scikit-learn's ``memory`` would load pickles from a folder that the file names."""
    model = make_pipeline(StandardScaler(), RidgeCV(), memory=str(tmp_path / "cache")).fit(X, X[:, 0])
    save(model, tmp_path / "m")
    header, arrays = _parts(tmp_path / "m")
    assert header["model"]["state"]["memory"] is None
    header["model"]["state"]["memory"] = str(tmp_path / "evil")
    _write(tmp_path / "m", header, arrays)
    again = load(tmp_path / "m")
    assert again.memory is None
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    again.fit(X, X[:, 0])
    assert not (tmp_path / "evil").exists()
