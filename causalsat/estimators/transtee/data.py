"""Units of a fit as arrays and tensors, scaled, in an order of their own, and the sizes of the network for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler, warn_of_unresolved
from causalsat.core.inputs import FitData, FloatArray
from causalsat.estimators.image_base import ImageFitData
from causalsat.estimators.transtee.families import predictor_of_mean
from causalsat.estimators.transtee.treatments import TreatmentCoding, inverse_propensity

__all__ = [
    "ImageShape",
    "NetworkShape",
    "Scaling",
    "Units",
    "column_groups",
    "learn_scaling",
    "make_units",
    "table_tensor",
]


@dataclass(frozen=True)
class ImageShape:
    """Images that a network reads: dates, bands and pixels of a side."""

    n_time: int
    n_bands: int
    height: int
    width: int

    @property
    def cells(self) -> tuple[int, int, int]:
        """Tokens of an image: dates, rows, columns."""
        return max(self.n_time, 1), -(-self.height // 4), -(-self.width // 4)


@dataclass(frozen=True)
class NetworkShape:
    """Sizes and choices of a network.

    Attributes
    ----------
    n_members, n_columns, n_basis : int
        Members of the ensemble, covariates, treatment features.
    width, n_heads, n_blocks, n_features : int
        Width of a token, heads of an attention, self-attention blocks over the covariate tokens, output features.
    column_embedding : bool
        Whether each column has maps to tokens of its own, or all share one.
    norm : str
        ``"pre"`` (before a layer), ``"post"`` (after its residual sum, as in the paper) or ``"none"``.
    crossed : int
        The last ``crossed`` treatment features also enter multiplied with every covariate, linearly.
    image : ImageShape or None
        Images, where units have them.
    """

    n_members: int
    n_columns: int
    n_basis: int
    width: int = 16
    n_heads: int = 2
    n_blocks: int = 0
    n_features: int = 16
    column_embedding: bool = True
    norm: str = "pre"
    crossed: int = 0
    image: ImageShape | None = None


def column_groups(shape: NetworkShape) -> list[int]:
    """Block of each output column: 0 constant, 1 treatment, 2 covariates, 3 learned, 4 crossed.

    Columns of a block share a prior scale.

    Examples
    --------
    >>> column_groups(NetworkShape(1, n_columns=2, n_basis=1, n_features=3))
    [0, 1, 2, 2, 3, 3, 3]
    """
    counts = (1, shape.n_basis, shape.n_columns, shape.n_features, shape.crossed * shape.n_columns)
    return [block for block, count in enumerate(counts) for _ in range(count)]


IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations of covariates (p,) and outcome; 1 where they do not vary."""

    x_mean: FloatArray
    x_sd: FloatArray
    y_mean: float
    y_sd: float

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised covariates."""
        return (X - self.x_mean) / self.x_sd


@dataclass(frozen=True)
class Units:
    """Units of a fit, shuffled by the seed from the order of their content.

    Attributes
    ----------
    X, basis : ndarrays of shape (n, p) and (n, K)
        Standardised covariates, treatment features.
    target : ndarray of shape (n,)
        What an adversary is to predict.
    y, weight : ndarrays of shape (n,)
        Outcome, standardised where it is normal; weight of mean 1.
    groups : ndarray of int of shape (n,) or None
        Villages, coded in the order of their first unit.
    unit_image : ndarray of int of shape (n,) or None
        Image of each unit.
    images, treatments : torch.Tensor or None
        Distinct images; the table of treatments.
    """

    X: FloatArray
    basis: FloatArray
    target: FloatArray
    y: FloatArray
    weight: FloatArray
    groups: IntArray | None
    unit_image: IntArray | None = None
    images: Any = None
    treatments: Any = None


def learn_scaling(data: FitData, family: str = "gaussian") -> Scaling:
    """Means and standard deviations of covariates, and weighted ones of the outcome.

    Of a yes/no outcome or a count, the mean is the predictor of the mean and the unit is that of the predictor.
    """
    x, y = learn_scaler(data.X), learn_scaler(data.y, data.sample_weight)
    warn_of_unresolved(x, data.feature_names)
    if family != "gaussian":
        return Scaling(x.mean, x.scale_or_one, predictor_of_mean(data.y, data.sample_weight, family), 1.0)
    return Scaling(x.mean, x.scale_or_one, float(y.mean), float(y.scale_or_one))


def make_units(
    data: FitData,
    coding: TreatmentCoding,
    scaling: Scaling,
    dosage: FloatArray | None,
    images: Any,
    table: NDArray[np.float32] | None,
    *,
    propensity_weights: bool,
    seed: int,
    family: str = "gaussian",
) -> Units:
    """Standardised units in an order that does not depend on that of the rows.

    Parameters
    ----------
    data : FitData
        Checked units.
    coding, scaling
        Of this fit.
    dosage : ndarray of shape (n,) or None
        Dosage of each unit's level.
    images : torch.Tensor or None
        Distinct images, standardised.
    table : ndarray of shape (K, ...) or None
        Structured treatments.
    propensity_weights : bool
        Whether weights are multiplied by those of :func:`inverse_propensity`; not by those of levels whose inverse
        probabilities are in them already (``data.balanced``).
    seed : int
        Of the shuffle.
    family : {"gaussian", "bernoulli", "negative_binomial"}
        Of the outcome, which is standardised where it is normal.
    """
    image = data.images.unit_image if isinstance(data, ImageFitData) else None
    order = _canonical_order(data.X, data.y, data.treatment, dosage, data.sample_weight, image)
    order = order[np.random.default_rng([seed, 1]).permutation(len(order))]
    X, level = scaling.features(data.X)[order], data.treatment[order]
    dose = None if dosage is None else dosage[order]
    weight = data.sample_weight[order]
    groups = None if data.groups is None or data.n_groups == len(data.y) else _recode(data.groups[order])
    if propensity_weights:
        known = None if data.propensity is None else data.propensity[order]
        weight = weight * inverse_propensity(X, level, dose, coding, groups, weight, known, balanced=data.balanced)
    return Units(
        X=np.ascontiguousarray(X),
        basis=coding.basis(level, dose),
        target=coding.target(level, dose),
        y=data.y[order] if family != "gaussian" else (data.y[order] - scaling.y_mean) / scaling.y_sd,
        weight=weight / weight.mean(),
        groups=groups,
        unit_image=None if image is None else image[order],
        images=images,
        treatments=table_tensor(table),
    )


def _canonical_order(X: FloatArray, y: FloatArray, *keys: Any) -> IntArray:
    """Order of the units by their content, so that a fit does not depend on the order of the rows."""
    return np.lexsort([*X.T, *(key for key in keys if key is not None), y]).astype(np.int64)


def _recode(groups: Any) -> IntArray:
    """Codes in the order of first appearance."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()].astype(np.int64)


def table_tensor(table: Any) -> Any:
    """Table of structured treatments as a tensor of single precision, or None."""
    if table is None:
        return None
    import torch

    return torch.from_numpy(np.array(table, dtype=np.float32))
