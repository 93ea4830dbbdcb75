"""Stochtree: loading it, sampling a chain, forests as bytes and back, their draws at places."""

from __future__ import annotations

import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.optional import require
from causalsat.exceptions import DataError

__all__ = ["compress", "forest_draws", "load_stochtree", "rebuild", "sample_chain"]

FloatArray = NDArray[np.float64]

ATTEMPTS = 5  # of a chain at which stochtree stops


def load_stochtree() -> Any:
    """Stochtree, or an error that names the extra."""
    require("stochtree", "trees", "BayesianForestEffect")
    import stochtree

    return stochtree


def sample_chain(options: dict[str, Any], rng: np.random.Generator, **data: FloatArray) -> Any:
    """One sampled BCFModel; a start at which stochtree stops (tiny, perfectly fitted samples) is tried again.

    Parameters
    ----------
    options : dict
        Arguments of ``BCFModel.sample``.
    rng : numpy.random.Generator
        Gives the seed.
    **data : ndarray
        ``X_train``, ``Z_train`` and ``y_train``.
    """
    for _ in range(ATTEMPTS):
        seeded = {**options["general_params"], "random_seed": int(rng.integers(1, 2**31 - 1))}
        model = load_stochtree().BCFModel()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.sample(**data, **{**options, "general_params": seeded})
        except (ValueError, RuntimeError) as error:
            reason = str(error)
        else:
            return model
    raise DataError(f"stochtree stopped: {reason}", expected="more units, or an outcome that is not fitted perfectly")


def forest_draws(container: Any, table: FloatArray) -> FloatArray:
    """Draws (draw, unit) of a forest, on the sampler's scale."""
    dataset = load_stochtree().Dataset()
    dataset.add_covariates(np.ascontiguousarray(table))
    dataset.add_basis(np.ones((len(table), 1)))
    return np.asarray(container.predict_raw(dataset), dtype=float).reshape(len(table), -1).T


def compress(container: Any) -> NDArray[np.uint8]:
    """JSON of a stochtree forest as compressed bytes, shape (bytes,)."""
    return np.frombuffer(zlib.compress(container.dump_json_string().encode(), 1), dtype=np.uint8).copy()


def rebuild(code: NDArray[np.uint8], n_trees: int, *, leaf_constant: bool) -> Any:
    """Stochtree's forest from its compressed JSON; parses data, runs none."""
    container = load_stochtree().ForestContainer(n_trees, 1, leaf_constant, False)
    container.load_from_json_string(zlib.decompress(code.tobytes()).decode())
    return container
