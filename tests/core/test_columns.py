"""A selection of columns means the same in every estimator."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.core.inputs import select_columns
from causalsat.exceptions import ColumnError, ParameterError

IMAGE_FIRST = ["img0", "img1", "age", "i?"]
AGE_FIRST = ["age", "img0", "img1", "img0 missing"]  # three features and an indicator


@pytest.mark.parametrize(
    ("selection", "positions"),
    [
        (None, [0, 1, 2, 3]),
        ("img*", [0, 1]),
        (["age", "img1"], [1, 2]),
        ([-1, 0], [0, 3]),
        ("i[m]g0", [0]),
        (2, [2]),
        ([], []),
        ((), []),
        (np.array([1]), [1]),
    ],
)
def test_columns_are_selected(selection, positions):
    chosen = select_columns(IMAGE_FIRST, selection)
    assert chosen.tolist() == positions
    assert chosen.dtype == np.int64


@pytest.mark.parametrize(
    ("selection", "positions"),
    [
        (None, [0, 1, 2]),
        ("img*", [1, 2]),
        (["img1", "age"], [2, 0]),
        ([2, -3, 2], [2, 0]),
        ([], []),
        ("img0 missing", [3]),
    ],
)
def test_in_the_order_of_the_selection_and_indicators_by_their_full_name_only(selection, positions):
    assert select_columns(AGE_FIRST, selection, n_features=3, ordered=True).tolist() == positions
    assert select_columns(AGE_FIRST, selection, n_features=3).tolist() == sorted(positions)


def test_a_name_that_is_also_a_pattern_is_a_name():
    assert select_columns(["a*", "ab"], "a*").tolist() == [0]


@pytest.mark.parametrize(
    ("selection", "error"),
    [
        ("sat*", ColumnError),
        (["age", "nope"], ColumnError),
        ([3], ColumnError),
        (9, ColumnError),
        ([0.5], ParameterError),
        (1.5, ParameterError),
        ([True], ParameterError),
    ],
)
def test_columns_that_do_not_exist(selection, error):
    with pytest.raises(error, match=r"modifiers.*(What to do|Expected)"):
        select_columns(AGE_FIRST, selection, n_features=3)
