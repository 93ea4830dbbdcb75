"""The estimator contract for models whose X is images: every distinct image is read and encoded once.

A subclass has the constructor parameters ``imagery``, ``size_m``, ``covariates`` and ``min_valid``, and writes
``_fit(data)``, which receives an :class:`ImageFitData` and sets ``encoder_`` (a fitted transformer of chips), and
``_effect_draws(design, treatment, baseline)``. The design of a unit is its image's features, then its covariates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.base import EffectEstimator
from causalsat.core import features as support
from causalsat.core import inputs
from causalsat.core.inputs import FitData, FloatArray
from causalsat.core.progress import bar as progress_bar
from causalsat.encoders import chips as _chips
from causalsat.encoders import places as _places
from causalsat.encoders.places import check_units
from causalsat.encoders.scale import familiar_shares, known_scale, support_factor
from causalsat.exceptions import ColumnError, DataError, ImageryError, ParameterError

__all__ = ["ImageEffectEstimator", "ImageFitData", "Images"]

IntArray = NDArray[np.int64]
_HASH_UNITS = 256  # chips hashed at a time


@dataclass(frozen=True)
class Images:
    """Distinct images of the units.

    Attributes
    ----------
    chips : DataArray of shape (m, [time,] band, y, x), float32
        Distinct chips, NaN where invalid, in an order that does not depend on the order of the units.
    unit_image : ndarray of int of shape (n,)
        The image of each unit.
    """

    chips: Any
    unit_image: IntArray

    def __len__(self) -> int:
        """Number of distinct images."""
        return int(self.chips.shape[0])


@dataclass(frozen=True, kw_only=True)
class ImageFitData(FitData):
    """What ``_fit`` of an image estimator receives; ``X`` holds the covariates, complete, with their indicators.

    Attributes
    ----------
    images : Images
        Distinct images and the image of each unit.
    """

    images: Images

    def clustered_on_images(self) -> ImageFitData:
        """The same data with the images as clusters, where none are given and units share images.

        What a model leaves of the effect or the outcome of an image, all its units have in common.
        """
        if self.groups is not None or len(self.images) == len(self.y):
            return self
        return replace(self, groups=self.images.unit_image)

    def in_content_order(self) -> tuple[ImageFitData, IntArray]:
        """The units in an order that does not depend on that of the rows, and their positions, shape (n,)."""
        keys = [*self.X.T, self.sample_weight, self.y, self.treatment, self.images.unit_image]
        order = np.lexsort(keys)
        arrays = {name: getattr(self, name)[order] for name in ("X", "y", "treatment", "sample_weight")}
        arrays["propensity"] = None if self.propensity is None else self.propensity[order]
        for name in ("groups", "strata"):
            codes = getattr(self, name)
            arrays[name] = None if codes is None else in_order_of_appearance(codes[order])
        images = replace(self.images, unit_image=self.images.unit_image[order])
        return replace(self, images=images, **arrays), order

    @property
    def blocks(self) -> IntArray:
        """Block of each unit, shape (n,): units that share a cluster or an image, directly or through others."""
        return blocks_of(self.images.unit_image, self.groups, len(self.images))[self.images.unit_image]


def in_order_of_appearance(codes: IntArray) -> IntArray:
    """Codes 0, 1, ... in the order in which they first appear.

    Examples
    --------
    >>> in_order_of_appearance(np.array([7, 7, 2, 7, 0]))
    array([0, 0, 1, 0, 2])
    """
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse.ravel()], dtype=np.int64)


def blocks_of(image: IntArray, groups: IntArray | None, n_images: int) -> IntArray:
    """Block of each image, shape (m,): images of one cluster, and clusters of one image, are never apart.

    Examples
    --------
    >>> blocks_of(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), 3)
    array([0, 0, 1])
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if groups is None:
        return np.arange(n_images)
    size = n_images + int(groups.max()) + 1
    links = coo_matrix((np.ones(len(image)), (image, n_images + groups)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][:n_images], dtype=np.int64)


class ImageEffectEstimator(EffectEstimator):
    """Base of the estimators whose X is images: chips, or a GeoDataFrame of places on imagery.

    X is chips (ndarray or DataArray of shape (unit, [time,] band, y, x)), or a GeoDataFrame where the parameters
    ``imagery`` and ``size_m`` say what is read at its geometry. Units with the same window, or with equal chips,
    share one image, which is read and encoded once, and are a cluster unless ``groups`` says otherwise. Covariates
    are columns of the GeoDataFrame, or coordinates along the unit dimension of a DataArray.
    """

    _contract_data: ClassVar[str] = "images"
    _transient: ClassVar[tuple[str, ...]] = (*EffectEstimator._transient, "_recent", "_training")
    # whether effects (and not only outcomes) depend on the covariates, so that prediction needs them
    _effect_needs_covariates: ClassVar[bool] = False

    imagery: Any
    size_m: float | None
    covariates: Sequence[str]
    min_valid: float
    encoder_: Any

    # ------------------------------------------------------------------ the contract
    def _learn_support(self, data: FitData) -> None:
        assert isinstance(data, ImageFitData)
        features = self._encode_images(data.images)
        self.n_image_features_, self.n_images_ = features.shape[1], len(data.images)
        self.design_names_ = (*(f"img{j}" for j in range(features.shape[1])), *self.covariate_names_)
        self.support_reference_ = support.learn_support(np.unique(features, axis=0))
        self._training: tuple[Images, FloatArray] | None = None

    def _support_columns(self) -> NDArray[np.int64] | slice:
        return slice(0, self.n_image_features_)

    def _with_design(self, data: FitData, strata: Any) -> FitData:
        data = super()._with_design(data, strata)
        return data.clustered_on_images() if isinstance(data, ImageFitData) else data

    # ------------------------------------------------------------------ checks, once, on input
    def _check_fit(
        self, X: Any, y: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any
    ) -> ImageFitData:
        values = self._resolve_roles(X, treatment, groups, sample_weight, propensity)
        self._recent: tuple[str, FloatArray, IntArray, FloatArray | None] | None = None
        images = self._read_images(X)
        raw = covariate_table(X, self.covariates)
        self.covariate_imputation_ = inputs.learn_imputation(raw, tuple(self.covariates))
        indicators = tuple(f"{self.covariates[j]} missing" for j in self.covariate_imputation_.indicators)
        self.covariate_names_ = (*(str(name) for name in self.covariates), *indicators)
        return ImageFitData(
            X=self.covariate_imputation_.apply(raw, tuple(self.covariates)),
            feature_names=self.covariate_names_,
            images=images,
            **self._checked_roles(y, values, len(images.unit_image)),
        )

    def _trial_design(self) -> FloatArray:
        means, indicators = self.covariate_imputation_.means, self.covariate_imputation_.indicators
        average = np.concatenate([np.zeros(self.n_image_features_), means, np.zeros(len(indicators))])
        if len(self.covariate_names_) != len(means) + len(indicators):
            raise ValueError(f"{len(self.covariate_names_)} names of covariates")
        shape = tuple(int(k) for k in self.chip_shape_)
        chips = np.linspace(0.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)
        features = np.asarray(self.encoder_.transform(chips))
        if features.shape != (1, self.n_image_features_):
            raise ValueError(f"features of shape {features.shape} of a chip for {self.n_image_features_}")
        scale = known_scale(self.encoder_)
        if scale is not None:
            familiar_shares(scale, chips)
        return np.tile(average, (2, 1))

    def _check_predict(self, X: Any, *, effect_only: bool = False) -> tuple[FloatArray, NDArray[Any]]:
        """Design (n, image features + covariates) and labels of the units; each distinct image is encoded once.

        With ``effect_only``, covariates on which the effect does not depend need not be there.
        """
        check_is_fitted(self, "encoder_")
        features, unit_image = self._encode(X)
        n = len(unit_image)
        if effect_only and not self._effect_needs_covariates:
            covariates = np.broadcast_to(
                np.concatenate(
                    [self.covariate_imputation_.means, np.zeros(len(self.covariate_imputation_.indicators))]
                ),
                (n, len(self.covariate_names_)),
            )
        else:
            raw = covariate_table(X, self.covariates)
            covariates = self.covariate_imputation_.apply(raw, tuple(self.covariates))
        return np.hstack([features[unit_image], covariates]), inputs.unit_index(X)

    # ------------------------------------------------------------------ images
    def _encode_images(self, images: Images) -> FloatArray:
        """Features (m, d) of the training images, computed once in a fit, after ``encoder_`` is set."""
        training = getattr(self, "_training", None)
        if training is None or training[0] is not images:
            training = (images, np.asarray(self.encoder_.transform(images.chips), dtype=np.float64))
            self._training = training
        return training[1]

    def _encode(self, X: Any) -> tuple[FloatArray, IntArray]:
        """Features (m, d) of the distinct images of X and the image of each unit, (n,).

        The features of the last X are kept in memory, so that ``effect`` and ``support`` of the same X, which a map
        asks for, encode once.
        """
        if self._reads(X):
            geometry = check_units(X)
            size = self._size_px(geometry)
            places = _places.distinct_places(geometry, [(self.imagery, size)])
            key = _digest(places.windows[0], places.unit_place)
            if (remembered := self._from_memory(key)) is not None:
                return remembered
            with _no_bar(len(places)) as bar:
                encoded = _places.encode_places(
                    self.imagery, self.encoder_, places.geometry, places.windows[0], size, dense="auto", bar=bar
                )
            self._check_valid(encoded.valid, places.unit_place, geometry.index)
            features, unit_image, familiar = encoded.features, places.unit_place, encoded.familiar
        else:
            view = self._open(X)
            first, unit_image, key = _distinct_chips(view)
            if (remembered := self._from_memory(key)) is not None:
                return remembered
            scale, parts, known = known_scale(self.encoder_), [], []
            for start in range(0, len(first), _HASH_UNITS):
                chips = _take(view, first[start : start + _HASH_UNITS])
                parts.append(np.asarray(self.encoder_.transform(chips), dtype=np.float64))
                shares = _places.valid_share(np.asarray(chips))
                self._check_valid(shares, np.arange(len(shares)), inputs.unit_index(X)[first[start:]])
                known.append(shares if scale is None else familiar_shares(scale, np.asarray(chips)))
            features, familiar = np.concatenate(parts), None if scale is None else np.concatenate(known)
        self._recent = (key, features, unit_image, familiar)
        return features, unit_image

    def _from_memory(self, key: str) -> tuple[FloatArray, IntArray] | None:
        recent = getattr(self, "_recent", None)
        return (recent[1], recent[2]) if recent is not None and recent[0] == key else None

    def support(self, X: Any) -> FloatArray:
        """How much the training data say about each unit, shape (n,), in [0, 1]; below 0.05 is extrapolation.

        The share of training images at least as far from their nearest neighbours as this unit's is, in the whitened
        features, times the share of its pixels that are valid, within the range of the training images and no fill.
        """
        near = super().support(X)
        scale, recent = known_scale(getattr(self, "encoder_", None)), getattr(self, "_recent", None)
        if scale is None or recent is None or recent[3] is None:
            return near
        return np.asarray(near * support_factor(scale, recent[3])[recent[2]], dtype=np.float64)

    def _read_images(self, X: Any) -> Images:
        """Distinct images of X in memory, for fitting."""
        if self._reads(X):
            geometry = check_units(X)
            size = int(self.imagery.size_px(float(self.size_m or 0), geometry))
            places = _places.distinct_places(geometry, [(self.imagery, size)])
            chips = np.empty((len(places), *self.imagery.leading, size, size), dtype=np.float32)
            for position, batch in _places.read_chips(self.imagery, places.geometry, size):
                chips[position] = batch
            self.chip_shape_, index = tuple(int(k) for k in chips.shape[1:]), geometry.index
            order = np.argsort(_content(chips), kind="stable")
            images = Images(_places.as_chips(self.imagery, chips[order]), np.argsort(order)[places.unit_place])
        else:
            view = self._open(X, fitting=True)
            first, unit_image, _ = _distinct_chips(view)
            images, index = Images(_take(view, first), unit_image), inputs.unit_index(X)
        self._check_valid(_places.valid_share(np.asarray(images.chips)), images.unit_image, index)
        return images

    def _read_unit_chips(self, X: Any) -> NDArray[np.float32]:
        """Chips (n, [time,] band, y, x) of all units of X, NaN where invalid."""
        if self._reads(X):
            size = self._size_px(X.geometry)
            chips = np.empty((len(X), *self.imagery.leading, size, size), dtype=np.float32)
            for position, batch in _places.read_chips(self.imagery, X.geometry, size):
                chips[position] = batch
            return chips
        view = self._open(X)
        taken = view.take(slice(None))
        return taken if view.spec.n_time else taken[:, 0]

    def _reads(self, X: Any) -> bool:
        """Whether X is a table of places; refuses one without imagery to read."""
        if inputs.is_dataarray(X) or not (inputs.is_dataframe(X) or hasattr(X, "crs")):
            return False
        check_units(X)
        if self.imagery is None or self.size_m is None:
            raise ParameterError(
                f"a {type(X).__name__} with imagery={self.imagery!r}, size_m={self.size_m!r}",
                expected="imagery= and size_m= in the constructor, or X as chips",
                todo=f"{type(self).__name__}(imagery=causalsat.open_imagery(path), size_m=1000)",
            )
        if not hasattr(self.imagery, "iter_chips"):
            raise ParameterError(
                f"imagery is a {type(self.imagery).__name__}",
                expected="what causalsat.open_imagery returns",
                todo="imagery=causalsat.open_imagery(path)",
            )
        return True

    def _size_px(self, geometry: Any) -> int:
        """Side of chips in pixels; refuses places where it has other metres on the ground."""
        assert self.size_m is not None
        return int(self.imagery.size_px(float(self.size_m), geometry, tell=False))

    def _open(self, X: Any, *, fitting: bool = False) -> _chips.ChipView:
        view = _chips.open_chips(X)
        shape = tuple(int(k) for k in view.data.shape[1:])
        if fitting:
            self.chip_shape_ = shape
        elif shape != self.chip_shape_:
            raise ImageryError(
                f"chips of shape {shape}",
                expected=f"{self.chip_shape_}, as in training",
                todo="read them with the same size_m",
            )
        return view

    def _check_valid(self, share: FloatArray, unit_image: IntArray, index: Any) -> None:
        """Refuse units whose image has too few valid pixels."""
        lost = share[unit_image] < max(self.min_valid, np.finfo(float).tiny)
        if lost.any():
            first = int(np.flatnonzero(lost)[0])
            raise ImageryError(
                f"{int(lost.sum())} of {len(lost)} units have too few valid pixels, the first at index "
                f"{index[first]!r} ({share[unit_image[first]]:.0%} valid)",
                expected=f"at least {self.min_valid:.0%} valid pixels within the chip",
                todo="drop those units (Study.check() shows them), or lower min_valid",
            )


def check_image_parameters(imagery: Any, size_m: Any, covariates: Any, min_valid: Any) -> None:
    """Refuse values outside the domain of the parameters that image estimators share."""
    if size_m is not None and not (_is_number(size_m) and np.isfinite(size_m) and size_m > 0):
        raise ParameterError(f"size_m={size_m!r}", expected="a positive number of metres")
    if imagery is not None and size_m is None:
        raise ParameterError("imagery without size_m", expected="size_m=, the side of a chip in metres")
    if isinstance(covariates, str):
        raise ParameterError(f"covariates={covariates!r}", expected="a list of names", todo=f"[{covariates!r}]")
    if not (_is_number(min_valid) and 0 <= min_valid <= 1):
        raise ParameterError(f"min_valid={min_valid!r}", expected="a share between 0 and 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def covariate_table(X: Any, names: Sequence[str]) -> FloatArray:
    """Covariates (n, q) from the columns of a table or the unit coordinates of chips; NaN where missing."""
    n = len(inputs.unit_index(X))
    if not len(names):
        return np.empty((n, 0))
    if inputs.is_dataframe(X):
        absent = [name for name in names if name not in X.columns]
        if not absent:
            table = np.asarray(inputs.features_only(X[list(names)], set()), dtype=float)
    elif inputs.is_dataarray(X):
        absent = [name for name in names if name not in X.coords or X[name].dims != X.dims[:1]]
        if not absent:
            table = np.column_stack([np.asarray(X[name], dtype=float) for name in names])
    else:
        absent = list(names)
    if absent:
        raise ColumnError(
            f"covariates name {absent[0]!r}, which X does not have",
            expected="columns of a GeoDataFrame, or coordinates along the units of a DataArray",
            todo="chips.assign_coords(age=('unit', age)), or check the spelling",
        )
    if np.isinf(table).any():
        raise DataError("covariates contain infinity (inf)", expected="finite numbers or missing values (NaN)")
    return table


def _distinct_chips(view: _chips.ChipView) -> tuple[IntArray, IntArray, str]:
    """Positions of the distinct chips, sorted by content; each unit's chip among them; a digest of all."""
    parts = []
    for _, chips in view.batches(_HASH_UNITS):
        if np.isinf(chips).any():
            raise DataError("chips contain infinity (inf)", expected="finite pixels, NaN where invalid")
        parts.append(_content(chips))
    keys = np.concatenate(parts)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return (
        first.astype(np.int64),
        inverse.ravel().astype(np.int64),
        hashlib.sha256("".join(keys).encode()).hexdigest(),
    )


def _content(chips: NDArray[np.float32]) -> NDArray[np.str_]:
    """A digest of each chip's pixels, shape (n,)."""
    return np.array([hashlib.blake2b(chip.tobytes(), digest_size=16).hexdigest() for chip in chips])


def _take(view: _chips.ChipView, units: IntArray) -> Any:
    """Chips of some units as a float32 DataArray."""
    import xarray as xr

    chips = view.take(units)
    chips = chips if view.spec.n_time else chips[:, 0]
    dims = ("unit", "band", "y", "x") if chips.ndim == 4 else ("unit", "time", "band", "y", "x")
    return xr.DataArray(chips, dims=dims, coords={"band": list(view.spec.bands)} if view.spec.named else None)


def _digest(*arrays: NDArray[Any]) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _no_bar(total: int) -> Any:
    return progress_bar(total=total, desc="", show=False)
