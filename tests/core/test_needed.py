"""Effects at places that lack the columns on which the effect does not depend."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline

from causalsat import DoublyRobustEffect, effect, support
from causalsat.exceptions import ColumnError


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(300, 3)), columns=["image", "age", "income"])
    treated = rng.integers(0, 2, 300)
    y = table["age"] + treated * (1 + table["image"]) + rng.normal(size=300)
    names = list(table)
    columns = make_column_transformer(("passthrough", names), verbose_feature_names_out=False)
    model = make_pipeline(columns.set_output(transform="pandas"), DoublyRobustEffect(modifiers=["image"], n_draws=50))
    return model.fit(table, y, doublyrobusteffect__treatment=treated), table.iloc[:20]


def test_covariates_that_only_adjust_may_be_absent(fitted):
    model, table = fitted
    whole = effect(model, table)
    lacking = effect(model, table[["image"]])
    np.testing.assert_array_equal(lacking.draws, whole.draws)
    np.testing.assert_array_equal(lacking.index, table.index)
    np.testing.assert_array_equal(support(model, table[["image", "age"]]), support(model, table))


def test_a_modifier_may_not(fitted):
    model, table = fitted
    with pytest.raises(ColumnError, match="effects of this model depend on 'image', which X lacks"):
        effect(model, table[["age", "income"]])
