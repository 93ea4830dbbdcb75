"""Keys of results on disk: equal for equal content in every process, different where the results may differ."""

import functools
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from causalsat.core import fingerprint as module
from causalsat.core.fingerprint import fingerprint
from causalsat.exceptions import ParameterError

torch = pytest.importorskip("torch")

FACTOR = 2.0


def helper(x):
    return x + 1


def uses_a_global(x):
    return FACTOR * x


def uses_a_helper(x):
    return helper(x)


def uses_a_helper_within(x):
    return [helper(item) for item in x]


def closing_over(constant):
    return lambda x: x + constant


def with_default(constant):
    return lambda x, c=constant: x + c


def written(text):
    space = {"np": np}
    exec(text, space)
    return space["made"]


def network(body, factor=1.0):
    """A class of a network whose forward is ``body``."""
    lines = ["class Net(torch.nn.Module):", f"    factor = {factor}", "    def forward(self, x):"]
    text = "\n".join([*lines, f"        return {body}", "made = Net"])
    space = {"torch": torch}
    exec(text, space)
    return space["made"]


PAIRS = {
    "lambdas": (lambda x: x + 1, lambda x: x + 2),
    "operations": (lambda x: x + 1, lambda x: x - 1),
    "names": (lambda x: np.sin(x), lambda x: np.cos(x)),
    "closures": (closing_over(1.0), closing_over(2.0)),
    "arrays in closures": (closing_over(np.zeros(3)), closing_over(np.ones(3))),
    "defaults": (with_default(1.0), with_default(2.0)),
    "partials": (functools.partial(np.power, 2), functools.partial(np.power, 3)),
    "partials by name": (functools.partial(np.clip, a_min=0, a_max=1), functools.partial(np.clip, a_min=0, a_max=2)),
    "functions of numpy": (np.log, np.log1p),
    "an edited function": (written("def made(x):\n    return x + 1"), written("def made(x):\n    return x * 2")),
    "an edited inner function": (
        written("def made(x):\n    def g(v): return v + 1\n    return g(x)"),
        written("def made(x):\n    def g(v): return v + 2\n    return g(x)"),
    ),
    "bound methods": ("a".join, "b".join),
    "a class's forward": (network("x + 1"), network("x + 2")),
    "a class's attribute": (network("x", 1.0), network("x", 2.0)),
    "an instance's class": (network("x + 1")(), network("x + 2")()),
    "a vectorised function": (np.vectorize(lambda x: x + 1), np.vectorize(lambda x: x + 2)),
    "a cached function": (functools.cache(lambda x: x + 1), functools.cache(lambda x: x + 2)),
    "patterns": (re.compile("a"), re.compile("b")),
    "generators of numbers": (np.random.default_rng(0), np.random.default_rng(1)),
    "columns' names": (pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]})),
    "columns' order": (pd.DataFrame({"a": [1.0], "b": [1.0]}), pd.DataFrame({"b": [1.0], "a": [1.0]})),
    "indices": (pd.Series([1.0], index=["a"]), pd.Series([1.0], index=["b"])),
    "dimensions": (xr.DataArray(np.ones((2, 2)), dims=("x", "y")), xr.DataArray(np.ones((2, 2)), dims=("y", "x"))),
    "masks": (np.ma.masked_array([1.0, 2.0], [True, False]), np.ma.masked_array([1.0, 2.0], [False, True])),
    "types of numbers": (np.arange(3), np.arange(3.0)),
    "shapes": (np.arange(4.0), np.arange(4.0).reshape(2, 2)),
    "nesting": ([1, [2, 3]], [[1, 2], 3]),
    "keys": ({"a": 1}, {"b": 1}),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_may_give_other_results_has_another_key(kind):
    first, second = PAIRS[kind]
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)


def test_equal_functions_and_classes_have_one_key():
    assert fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    assert fingerprint(closing_over(3.0)) == fingerprint(closing_over(3.0))
    assert fingerprint(network("x + 1")()) == fingerprint(network("x + 1")())
    assert fingerprint(functools.partial(np.power, 2)) == fingerprint(functools.partial(np.power, 2))


def test_what_a_function_refers_to_counts(monkeypatch):
    here = sys.modules[__name__]
    before = [fingerprint(f) for f in (uses_a_global, uses_a_helper, uses_a_helper_within)]
    monkeypatch.setattr(here, "FACTOR", 3.0)
    monkeypatch.setattr(here, "helper", lambda x: x + 2)
    after = [fingerprint(f) for f in (uses_a_global, uses_a_helper, uses_a_helper_within)]
    assert not set(before) & set(after)


def test_a_module_of_ones_own_counts_by_what_is_used_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_tools.py").write_text("def scale(x):\n    return 2 * x\n\n\ndef other(x):\n    return x\n")
    import own_tools

    through_module = written("import own_tools\ndef made(x):\n    return own_tools.scale(x)")
    inside = written("def made(x):\n    import own_tools\n    return own_tools.scale(x)")
    before, text = fingerprint(through_module), fingerprint(inside)
    monkeypatch.setattr(own_tools, "other", lambda x: -x)
    assert fingerprint(through_module) == before
    monkeypatch.setattr(own_tools, "scale", lambda x: 3 * x)
    assert fingerprint(through_module) != before
    (tmp_path / "own_tools.py").write_text("def scale(x):\n    return 3 * x\n")
    assert fingerprint(inside) != text


def test_weights_buffers_and_hooks_of_a_network_count():
    def make():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))

    first, other, hooked, counted = make(), make(), make(), make()
    assert fingerprint(first) == fingerprint(other)
    with torch.no_grad():
        other[0].weight[0, 0] += 1
    hooked.register_forward_hook(lambda layer, given, out: 2 * out)
    counted[1].running_mean += 1
    assert len({fingerprint(m) for m in (first, other, hooked, counted)}) == 4


def test_a_class_that_refers_to_itself_ends():
    class Node:
        def __init__(self):
            super().__init__()
            self.me, self.kind = self, Node

    assert fingerprint(Node()) == fingerprint(Node())


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"step": [threading.Lock()]}, re.escape("dict['step'][1][0] is a _thread.lock")),
        ((i for i in range(3)), "generator"),
        (np.frompyfunc(lambda x: x + 1, 1, 1), "ufunc"),
        (functools.partial(map, threading.Lock()), r"partial.*lock"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_by_its_name(value, named):
    with pytest.raises(ParameterError, match=named):
        fingerprint(value)


SCRIPT = """
import functools, numpy as np, pandas as pd
from causalsat.core.fingerprint import fingerprint
class Own:
    names = {"b", "a", "c"}
    def fit(self, x):
        return x in {"red", "green", "blue"}
print(fingerprint([{"a", "b", "c"}, Own, Own(), lambda x: x in {1, 2, "k"}, pd.DataFrame({"a": ["x", "y"]}),
                   functools.partial(np.power, 2), frozenset("xyz"), np.random.default_rng(3)]))
"""


def test_keys_are_equal_in_every_process():
    keys = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(keys) == 1


def test_another_version_of_an_installed_package_is_another_key(monkeypatch):
    before = fingerprint(np.mean)
    monkeypatch.setattr(np, "__version__", "0.0")
    module._library.cache_clear()
    assert fingerprint(np.mean) != before
    monkeypatch.undo()
    module._library.cache_clear()
