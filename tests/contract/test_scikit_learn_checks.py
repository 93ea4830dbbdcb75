"""scikit-learn's own checks of estimators, run on every public one."""

from __future__ import annotations

import numpy as np
import pytest
from contract_kinds import each_of_images, each_of_tables, make
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import _num_samples

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def supplying_treatment(kind):
    """The adapter through which scikit-learn's checks, which know no treatment, run: every second unit is treated."""

    class Supplied(kind):
        def fit(self, X, y=None, sample_weight=None):
            return super().fit(X, y, treatment=np.arange(_num_samples(X)) % 2, sample_weight=sample_weight)

        def score(self, X, y, sample_weight=None):
            return super().score(X, y, treatment=np.arange(_num_samples(X)) % 2, sample_weight=sample_weight)

    Supplied.__name__ = Supplied.__qualname__ = f"Supplied{kind.__name__}"
    globals()[Supplied.__name__] = Supplied  # pickle looks classes up by name
    return Supplied


# scikit-learn's checks that cannot pass, each with its reason
CANNOT_PASS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "weights are survey weights, not repeated units, and the adapter's treatment depends on a row's position"
    ),
}

# of estimators of images, the checks that look at the class alone: those that fit hand over tables, which these
# refuse; what they look for is looked for on images by the tests above
CHECKS_WITHOUT_DATA = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
)


@each_of_tables
@pytest.mark.slow
def test_scikit_learns_own_checks_pass(kind):
    results = check_estimator(make(supplying_treatment(kind)), on_fail=None, on_skip=None)
    failed = {r["check_name"]: repr(r["exception"])[:300] for r in results if r["status"] == "failed"}
    assert {k: v for k, v in failed.items() if k not in CANNOT_PASS} == {}
    assert sum(r["status"] == "passed" for r in results) >= 30


@each_of_images
def test_scikit_learns_checks_of_the_class_pass(kind):
    failed = {}
    for name in CHECKS_WITHOUT_DATA:
        try:
            getattr(estimator_checks, name)(kind.__name__, make(kind))
        except Exception as error:  # a check may raise anything
            failed[name] = repr(error)[:300]
    assert failed == {}
