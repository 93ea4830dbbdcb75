"""Model files written before classes moved between modules load, and give the draws that they gave then.

The files in ``models/`` were saved at revision cc77d5d, fitted to ``contract_worlds`` with 120 units.
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import causalsat
from causalsat.moved_classes import MOVED

MODELS = Path(__file__).parent / "models"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contract"))

from contract_worlds import world_of  # noqa: E402


@pytest.mark.parametrize("name", ["BayesianLinearEffect", "DRLearnerEffect", "TransTEE"])
def test_a_model_saved_before_the_move_predicts_as_it_did(name):
    kind = getattr(causalsat, name)
    loaded = causalsat.load(MODELS / f"{name}.safetensors")
    assert type(loaded) is kind
    np.testing.assert_allclose(loaded.predict(world_of(kind, 120).X), np.load(MODELS / f"{name}.npy"), rtol=1e-5)


def test_every_class_that_moved_is_where_the_table_says():
    for old, module in MOVED.items():
        name = old.partition(":")[2]
        assert getattr(import_module(f"causalsat.{module}"), name).__module__ == f"causalsat.{module}", old
