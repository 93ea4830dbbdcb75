"""Invariances that posteriors, rankings, saved models, tiles, catalogues and errors have for any input."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from causalsat import exceptions
from causalsat.catalog import load_catalog
from causalsat.evaluation import rate
from causalsat.exceptions import CatalogError, CausalsatError
from causalsat.mapping.tiles import plan_tiles, read_tile, write_tile
from causalsat.persistence import _decode, _encode
from causalsat.posterior import EffectPosterior

FINITE = st.floats(-1e6, 1e6, allow_nan=False, width=32)
DRAWS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12), elements=FINITE)


@given(DRAWS, st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_quantiles_are_ordered_and_intervals_nested(draws, shares):
    posterior = EffectPosterior(draws)
    shares = sorted(shares)
    quantiles = np.asarray(posterior.quantile(shares))
    assert (np.diff(quantiles, axis=int(quantiles.shape[0] != len(shares))) >= -1e-9).all()
    narrow, wide = posterior.interval(0.5), posterior.interval(0.9)
    assert (wide[:, 0] <= narrow[:, 0] + 1e-9).all()
    assert (narrow[:, 1] <= wide[:, 1] + 1e-9).all()
    above, below = posterior.prob(lambda tau: tau > 0), posterior.prob(lambda tau: tau <= 0)
    np.testing.assert_allclose(above + below, 1)
    np.testing.assert_allclose((posterior - posterior).sd(), 0)


@given(DRAWS, st.randoms(use_true_random=False))
def test_a_posterior_does_not_depend_on_the_order_of_units_or_draws(draws, random):
    order, rows = list(range(draws.shape[1])), list(range(draws.shape[0]))
    random.shuffle(order)
    random.shuffle(rows)
    whole, turned = EffectPosterior(draws), EffectPosterior(draws[rows][:, order])
    np.testing.assert_allclose(turned.mean(), whole.mean()[order], atol=1e-6)
    np.testing.assert_allclose(turned.interval(0.8), whole.interval(0.8)[order], atol=1e-6)
    np.testing.assert_allclose(float(turned.ate()), float(whole.ate()), atol=1e-6)


SIZES = st.integers(12, 60)


@given(SIZES, st.integers(0, 2**20), st.sampled_from(["autoc", "qini"]))
def test_rate_depends_on_the_ranking_and_scales_with_the_scores(n, seed, method):
    rng = np.random.default_rng(seed)
    priority, scores = rng.permutation(n) / 7.0, rng.standard_normal(n)
    assume(scores.std() > 1e-3)
    options = {"method": method, "n_bootstrap": 2, "random_state": 0}
    found = rate(priority, scores, **options).estimate
    assert rate(np.exp(priority / 9) - 5, scores, **options).estimate == pytest.approx(found, abs=1e-12)
    assert rate(priority, 3 * scores, **options).estimate == pytest.approx(3 * found, abs=1e-9)
    assert rate(priority, scores + 4, **options).estimate == pytest.approx(found, abs=1e-9)
    order = rng.permutation(n)
    assert rate(priority[order], scores[order], **options).estimate == pytest.approx(found, abs=1e-9)
    assert rate(np.zeros(n), scores, **options).estimate == pytest.approx(0, abs=1e-9)
    best, worst = rate(scores, scores, **options).estimate, rate(-scores, scores, **options).estimate
    assert worst - 1e-9 <= found <= best + 1e-9


ARRAYS = st.sampled_from(["f4", "f8", "i2", "i8", "u1", "?"]).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), ARRAYS)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(-9, 9)), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(NESTED)
def test_whatever_a_model_holds_comes_back_as_it_was(value):
    arrays = {}
    code = json.loads(json.dumps(_encode(value, arrays, "value")))
    back = _decode(code, arrays)
    assert type(back) is type(value)
    np.testing.assert_equal(back, value)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 25))
def test_tiles_cover_every_cell_once(height, width, side):
    counts = np.zeros((height, width), dtype=int)
    for tile in plan_tiles(height, width, side):
        assert max(tile.height, tile.width) <= side
        counts[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += 1
    assert (counts == 1).all()


@given(
    hnp.arrays(np.float32, (6, 3, 4), elements=st.floats(width=32)), st.integers(0, 10**6), st.integers(0, 7)
)  # fmt: skip
def test_a_tile_with_one_flipped_bit_is_no_tile(tmp_path_factory, values, at, bit):
    path = tmp_path_factory.mktemp("tile") / "t.npy"
    write_tile(path, values)
    np.testing.assert_array_equal(read_tile(path, values.shape), values)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    found = read_tile(path, values.shape)
    assert found is None or found.tobytes() == values.tobytes()


WORDS = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text("ab:*&{}[]'\" \n#", max_size=8),
    st.dates().map(str), st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip
KEYS = ("kind", "licence", "citation", "units", "roles", "imagery", "treatment_date", "simulate", "chip_size_m", "x")
VALUES = st.one_of(
    WORDS,
    st.sampled_from(["trial", "imagery", "simulated"]),
    st.dictionaries(
        st.sampled_from(["file", "path", "outcome", "treatment", "seed", "scene", "bands"]), WORDS, max_size=3
    ),
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=7))
def test_any_catalogue_is_read_or_refused_in_words(tmp_path_factory, entry):
    import yaml

    path = tmp_path_factory.mktemp("c") / "c.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "datasets": {"toy": entry}}), encoding="utf-8")
    try:
        assert list(load_catalog(path)) == ["toy"]
    except CatalogError as error:
        assert "c.yaml" in str(error)
        assert error.todo or error.expected


@given(st.text(max_size=300))
def test_any_text_is_a_catalogue_or_refused_in_words(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("c") / "c.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(CatalogError, match=r"c\.yaml"):
        load_catalog(path)


KINDS = [k for k in vars(exceptions).values() if isinstance(k, type) and issubclass(k, CausalsatError)]


@given(st.sampled_from(KINDS), st.text(max_size=30), st.one_of(st.none(), st.text(max_size=20)))
def test_errors_cross_processes_with_all_their_parts(kind, what, todo):
    error = kind(what, expected="x", todo=todo)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.what, copy.todo) == (kind, str(error), what, todo)
