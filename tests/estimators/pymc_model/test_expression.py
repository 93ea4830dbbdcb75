"""Deterministics written down without code: the same numbers after a file, for the operations that models use."""

from __future__ import annotations

import json

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from causalsat.estimators.pymc_model.expression import Expression, Graph, compiled, graph_of, read, written
from causalsat.exceptions import ModelFileError, ParameterError
from causalsat.persistence import _decode, _encode

RNG = np.random.default_rng(0)
ROOT = RNG.standard_normal((3, 3))
VALUES = {
    "x": RNG.standard_normal((6, 3)),
    "t": RNG.standard_normal(6),
    "b": RNG.standard_normal(3),
    "i": np.array([0, 1, 2, 0, 1, 2]),
    "m": ROOT @ ROOT.T + 3 * np.eye(3),
}


def inputs():
    return {"x": pt.matrix("x"), "t": pt.vector("t"), "b": pt.vector("b"), "i": pt.lvector("i"), "m": pt.matrix("m")}


def after_a_file(expression):
    arrays = {}
    text = json.dumps(_encode(expression, arrays, "model"))
    return _decode(json.loads(text), arrays)


# what the graph is, and what it must be in NumPy
CASES = {
    "linear": (lambda x, t, b, i, m: x @ b + 2 * t, lambda x, t, b, i, m: x @ b + 2 * t),
    "indices": (
        lambda x, t, b, i, m: b[i] + b[1:].sum() + x[:, 0] + x[::2, 1].mean() + x[pt.arange(x.shape[0]), i] + b[-1],
        lambda x, t, b, i, m: b[i] + b[1:].sum() + x[:, 0] + x[::2, 1].mean() + x[np.arange(6), i] + b[-1],
    ),
    "curves": (
        lambda x, t, b, i, m: pt.exp(-(t**2)) + pt.switch(t > 0, 1, 0) + pt.maximum(t, 0) + pt.log1p(pt.abs(t)),
        lambda x, t, b, i, m: np.exp(-(t**2)) + (t > 0) + np.maximum(t, 0) + np.log1p(np.abs(t)),
    ),
    "classes": (
        lambda x, t, b, i, m: pm.math.softmax(x @ m, axis=1) @ b + pm.math.invlogit(t),
        lambda x, t, b, i, m: (np.exp(x @ m) / np.exp(x @ m).sum(axis=1, keepdims=True)) @ b + 1 / (1 + np.exp(-t)),
    ),
    "kernel": (
        lambda x, t, b, i, m: pm.gp.cov.ExpQuad(3, 2.0)(x, m) @ b,
        lambda x, t, b, i, m: np.exp(-0.5 * ((x[:, None] - m) ** 2).sum(axis=2) / 4) @ b,
    ),
    "matrices": (
        lambda x, t, b, i, m: pt.linalg.solve(m, x.T)[0] + pt.linalg.cholesky(m)[0, 0] * pt.cumsum(t),
        lambda x, t, b, i, m: np.linalg.solve(m, x.T)[0] + np.linalg.cholesky(m)[0, 0] * np.cumsum(t),
    ),
    "new columns": (
        lambda x, t, b, i, m: pt.stack([t, t**2], axis=1) @ b[:2] + pt.concatenate([t, t])[:6] + pt.ones_like(t),
        lambda x, t, b, i, m: np.stack([t, t**2], axis=1) @ b[:2] + t + 1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_operations_give_the_same_numbers_after_a_file(case):
    symbolic, numeric = CASES[case]
    variables = inputs()
    graph = Graph(variables, symbolic(**variables), {})
    direct = compiled(graph)(VALUES)
    np.testing.assert_allclose(direct, numeric(**VALUES), rtol=1e-10)
    again = after_a_file(written(graph))
    assert isinstance(again, Expression)
    np.testing.assert_array_equal(compiled(read(again))(VALUES), direct)


def test_what_is_not_arithmetic_is_refused_by_name():
    variables = inputs()
    with pytest.raises(ModelFileError, match="Einsum"):
        written(Graph(variables, pt.einsum("ij,j->i", variables["x"], variables["b"]), {}))


@pytest.mark.parametrize(
    "code",
    [
        ("op", "pytensor.tensor.io", "LoadFromDisk", ()),
        ("op", "os", "system", ()),
        ("scalar", "pytensor.scalar.basic", "np"),
        ("op", "pytensor.tensor.basic", "as_tensor_variable", ()),
    ],
)
def test_a_file_cannot_name_other_code(code):
    expression = Expression((("t", "float64", (None,)),), ((code, (("input", 0),)),), (), ("node", 0, 0))
    with pytest.raises(ModelFileError, match="the file names"):
        read(expression)


def test_a_graph_stops_at_the_variables_and_keeps_other_data():
    with pm.Model() as model:
        X, scale = pm.Data("X", np.ones((4, 2))), pm.Data("scale", np.array([2.0, 3.0]))
        slope = pm.Normal("slope", pm.Normal("centre"), shape=2)
        pm.Deterministic("effect", (X * scale) @ slope)
        pm.Deterministic("noisy", X[:, 0] + pm.Normal.dist())
        pm.Deterministic("wide", X * slope)
    graph = graph_of(model, "effect")
    assert set(graph.inputs) == {"data X", "slope"}
    assert graph.constants == {"scale": (2,)}
    model.set_data("scale", np.zeros(2))  # a graph keeps the data of its time
    np.testing.assert_array_equal(compiled(graph)({"data X": np.ones((3, 2)), "slope": np.ones(2)}), [5, 5, 5])
    with pytest.raises(ParameterError, match="random variable"):
        graph_of(model, "noisy")
    with pytest.raises(ParameterError, match="2 dimensions"):
        graph_of(model, "wide")
