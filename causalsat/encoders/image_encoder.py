"""From a table of places to image features: chips at the units' geometry, encoded and reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from causalsat.core.displacement import row_of_position, spread_rows
from causalsat.core.fitting import unfitted_unless_finished
from causalsat.core.ground import middle_of
from causalsat.core.progress import bar as progress_bar
from causalsat.encoders import places as _places
from causalsat.encoders.base import feature_array
from causalsat.encoders.dense.window import LinearHead
from causalsat.encoders.encode_once import encode_others, is_known, shared_fit
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.places import COORDINATES, check_keep, check_units, learn_box, names_of, waves
from causalsat.encoders.random_conv.features import RandomConvFeatures
from causalsat.encoders.reduce import Reduction, learn_reduction
from causalsat.exceptions import DataError, ImageryError, ParameterError

__all__ = ["ImageEncoder"]

_FIT_BYTES = 512 << 20  # training chips held in memory while fitting


class ImageEncoder(TransformerMixin, BaseEstimator):
    """Image features of the places in a GeoDataFrame.

    Reads the imagery at each unit's geometry (distinct places once), encodes the chips, standardises the features
    and reduces them to principal components with unit variance over the distinct training places. Everything is
    learned in ``fit``, so that inside a Pipeline cross-validation learns filters and components from training
    places only.

    Where a geometry is a MultiPoint, the place is one of its points and nobody knows which, as in surveys that
    displace their coordinates: features are averaged over them.

    Where the places of one call overlap heavily, as the cells of a map do, and the encoder has a method ``dense``,
    the surroundings are encoded once and pooled over each place; the result is the same.

    Parameters
    ----------
    imagery : Imagery or dict of Imagery
        What :func:`causalsat.open_imagery` returns; several sources are encoded each with a clone of ``encoder`` and
        their features joined.
    size_m : float or sequence of float
        Side of the square around a place in metres; several sizes (multi-scale) are joined likewise.
    encoder : transformer of chips, optional
        Default :class:`RandomConvFeatures`; also :class:`TorchvisionEncoder`, any scikit-learn transformer of chips
        (unit, [time,] band, y, x), or a torch module, which is wrapped in a :class:`ModuleEncoder`.
    n_components : int, float or None, default 10
        Number of principal components; a share of variance between 0 and 1; None keeps all standardised features.
    keep : sequence of str, default ()
        Numeric columns of X appended as they come (missing values stay missing): the covariates.
    on_invalid : {"raise", "mask"}, default "raise"
        What to do about units off the imagery or with too few valid pixels: raise an error, or give NaN features.
    min_valid : float, default 0.5
        Share of valid pixels below which a unit counts as invalid.
    dense : {"auto", True, False}, default "auto"
        Whether to encode surroundings once; ``"auto"`` where it is cheaper.
    prefix : str, default "img"
        Beginning of the names of the features.
    progress : bool, default False
        Show a progress bar over places.
    coordinates : bool or "smooth", default False
        Append ``east`` and ``north``, the place's coordinates in the (first) imagery's coordinate system; with
        ``"smooth"`` also seven slow waves of them (``wave_e1n1``: one half wave from west to east and one from
        south to north), which bend a trend across the region of the training places and are constant beyond it.

    Attributes
    ----------
    encoders_ : list
        Fitted encoder of each source and size.
    reduction_ : Reduction
        Training means, scales and components; ``reduction_.explained`` has the shares of variance.
    feature_names_ : list of str
        Features before reduction: the encoders' names, after ``<source>_<size>m_`` where there are several.
    n_places_ : int
        Distinct training places.
    box_ : ndarray of shape (2, 2)
        With ``coordinates="smooth"``, lower corner and extent of the waves' region: the training places and a tenth
        of their extent around them.
    middle_ : float
        With ``coordinates`` in degrees, the longitude in the middle of the training places, from which others are
        counted, so that those on both sides of 180 degrees are neighbours.

    Notes
    -----
    The image columns of a place are NaN together or not at all. In a sequence, a date without any valid pixel
    counts as average; ``min_valid`` is judged over all dates.

    Examples
    --------
    >>> import geopandas, numpy as np, rioxarray, xarray
    >>> from causalsat.imagery import open_imagery
    >>> rng = np.random.default_rng(0)
    >>> pixels = xarray.DataArray(
    ...     rng.normal(size=(2, 90, 90)), dims=("band", "y", "x"),
    ...     coords={"band": ["red", "nir"], "y": 4e5 - 10.0 * np.arange(90), "x": 3e5 + 10.0 * np.arange(90)},
    ... ).rio.write_crs("EPSG:32636")
    >>> units = geopandas.GeoDataFrame(
    ...     {"age": rng.integers(18, 60, 20)},
    ...     geometry=geopandas.points_from_xy(rng.uniform(300200, 300700, 20), rng.uniform(399300, 399800, 20)),
    ...     crs="EPSG:32636",
    ... )
    >>> encoder = ImageEncoder(open_imagery(pixels), size_m=160, n_components=2, keep=["age"])
    >>> encoder.fit_transform(units).columns.tolist()
    ['img0', 'img1', 'age']
    """

    def __init__(
        self,
        imagery: Any,
        size_m: float | Sequence[float],
        encoder: Any = None,
        n_components: int | float | None = 10,
        keep: Sequence[str] = (),
        *,
        on_invalid: str = "raise",
        min_valid: float = 0.5,
        dense: bool | str = "auto",
        prefix: str = "img",
        progress: bool = False,
        coordinates: bool | str = False,
    ) -> None:
        self.imagery = imagery
        self.size_m = size_m
        self.encoder = encoder
        self.n_components = n_components
        self.keep = keep
        self.on_invalid = on_invalid
        self.min_valid = min_valid
        self.dense = dense
        self.prefix = prefix
        self.progress = progress
        self.coordinates = coordinates

    # ------------------------------------------------------------------ scikit-learn
    @property
    def requests_roles(self) -> bool:
        """Whether the encoder is trained on outcomes, and ``fit`` wants ``treatment`` and ``groups``."""
        return bool(getattr(self.encoder, "requests_roles", False))

    def fit(self, X: Any, y: ArrayLike | None = None, **roles: Any) -> ImageEncoder:
        """Learn the encoder and the components from the units' places.

        Parameters
        ----------
        X : GeoDataFrame or GeoSeries of n units
            Geometry with a coordinate reference system, and the columns in ``keep``.
        y : array of shape (n,), optional
            Outcome; read by encoders that are trained on it (:class:`SupervisedEncoder`), ignored by others.
        **roles
            ``treatment`` and ``groups``, arrays of shape (n,), for the same.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If X has no geometry, no coordinate reference system, or units without geometry.
        ImageryError
            If units lie off the imagery (``on_invalid="raise"``).
        ColumnError, ParameterError
            If ``keep`` names no numeric column of X, or a parameter is outside its domain.
        """
        self.fit_transform(X, y, **roles)
        return self

    def fit_transform(self, X: Any, y: ArrayLike | None = None, **roles: Any) -> Any:
        """Fit and return the features of the same units, encoding each place once."""
        with unfitted_unless_finished(self):
            spread = spread_rows(X)
            if spread is None:
                return self._fit_places(X, y, roles)
            rows, owner = spread  # features of every position where a place may be, then their means
            of_rows = {name: None if v is None else np.asarray(v)[owner] for name, v in {"y": y, **roles}.items()}
            table = self._fit_places(rows, of_rows.pop("y"), of_rows, owner)
            return self._mean_of_positions(table, owner, X)

    def _mean_of_positions(self, table: Any, owner: NDArray[np.int64], X: Any) -> Any:
        """Means over each unit's valid positions; the columns kept as they come."""
        means = table.groupby(owner, sort=True).mean().set_axis(X.index, axis=0)
        return means.assign(**{name: X[name] for name in self.keep})

    def transform_positions(self, X: Any) -> list[Any] | None:
        """Features of the units at each of the positions where they may be, a table each; None where all are exact.

        A position without enough valid pixels has the mean of the unit's others.
        """
        spread = spread_rows(X)
        if spread is None:
            return None
        rows, owner = spread
        table = self._transform_places(rows, owner)
        whole = self._mean_of_positions(table, owner, X)
        taken = [
            table.iloc[row_of_position(owner, k)].set_axis(X.index, axis=0) for k in range(np.bincount(owner).max())
        ]
        return [part.fillna(whole).assign(**{name: X[name] for name in self.keep}) for part in taken]

    def _fit_places(
        self, X: Any, y: ArrayLike | None, roles: dict[str, Any], owner: NDArray[np.int64] | None = None
    ) -> Any:
        sources = self._sources()
        geometry = check_units(X)
        for _, image, _ in sources:
            image.size_px(float(np.max(self.size_m)), geometry)  # refuses metres that are not so many on the ground
        check_keep(X, self.keep, self.prefix)
        places = _places.distinct_places(geometry, [(image, size) for _, image, size in sources])
        encoded = self._fit_sources(sources, places, y, roles)
        features, usable = self._join(encoded, places, geometry, owner)
        self.reduction_: Reduction = learn_reduction(features[usable], self.n_components)
        self.n_places_ = int(usable.sum())
        first = sources[0][1].grid
        if self.coordinates and first.crs.is_geographic:
            self.middle_ = middle_of(*first.points(places.geometry[usable]))[0]
        if self.coordinates == "smooth":
            self.box_ = learn_box(*self._coordinates(places.geometry[usable]))
        self.feature_names_ = self._feature_names([name for name, _, _ in sources], encoded)
        return self._table(X, features, usable, places)

    def transform(self, X: Any) -> Any:
        """Image features of units, and the columns kept.

        Parameters
        ----------
        X : GeoDataFrame or GeoSeries of n units

        Returns
        -------
        DataFrame of shape (n, components + kept columns)
            With the index of X; columns ``img0, img1, ...``, the coordinates if asked for, and those in ``keep``.
        """
        check_is_fitted(self)
        spread = spread_rows(X)
        if spread is None:
            return self._transform_places(X)
        return self._mean_of_positions(self._transform_places(*spread), spread[1], X)

    def _transform_places(self, X: Any, owner: NDArray[np.int64] | None = None) -> Any:
        sources = self._sources()
        geometry = check_units(X)
        for _, image, _ in sources:
            image.size_px(float(np.max(self.size_m)), geometry, tell=False)  # elsewhere a side may have other metres
        check_keep(X, self.keep, self.prefix)
        places = _places.distinct_places(geometry, [(image, size) for _, image, size in sources])
        heads = self._heads()
        reduction = self.reduction_ if self._reduces_first() else None
        with self._bar(len(places) * len(sources)) as bar:
            encoded = [
                encode_others(
                    image,
                    encoder,
                    places.geometry,
                    windows,
                    size,
                    dense=self.dense,
                    bar=bar,
                    head=head,
                    reduction=reduction,
                )
                for (_, image, size), windows, encoder, head in zip(
                    sources, places.windows, self.encoders_, heads, strict=True
                )
            ]
        features, usable = self._join(encoded, places, geometry, owner)
        if heads[0] is None:
            return self._table(X, features, usable, places, reduced=reduction is not None)
        scores = np.nansum([part.features for part in encoded], axis=0)
        return self._table(X, scores, usable, places, reduced=True)

    def read_chips(self, X: Any) -> NDArray[np.float32]:
        """Chips (n, [time,] band, y, x) of the units of X, NaN where invalid: what the encoder sees, for pictures.

        Raises
        ------
        ParameterError
            If there are several sources or sizes of chips.
        """
        imagery, size = self._one_source()
        geometry = check_units(X)
        chips = np.empty((len(geometry), *imagery.leading, size, size), dtype=np.float32)
        for position, part in _places.read_chips(imagery, geometry, size):
            chips[position] = part
        return chips

    def transform_chips(self, chips: NDArray[np.float32]) -> Any:
        """Image features of chips that were read, such as altered ones, as a DataFrame of the image columns.

        Parameters
        ----------
        chips : ndarray of shape (n, [time,] band, y, x)
            As :meth:`read_chips` gives them.

        Raises
        ------
        ParameterError
            If there are several sources or sizes of chips, or the encoder looks beyond its chips.
        """
        import pandas as pd

        imagery, size = self._one_source()
        encoder = self.encoders_[0]
        if _places.looks_beyond(encoder):
            raise ParameterError(
                f"{type(encoder).__name__}, which looks beyond its chips",
                expected="an encoder of chips alone",
                todo="fit the model with dense_stride=None",
            )
        if chips.shape[1:] != (expected := (*imagery.leading, size, size)):
            raise DataError(f"chips of shape {chips.shape}", expected=f"(n, {', '.join(map(str, expected))})")
        if getattr(encoder, "reads_places", False):
            raise ParameterError(
                f"{type(encoder).__name__}, which takes longitude and latitude",
                expected="an encoder of chips alone",
                todo="encode the places with transform",
            )
        raw = feature_array(encoder.transform(_places.as_chips(imagery, np.asarray(chips, dtype=np.float32))))
        return pd.DataFrame(self.reduction_.apply(raw), columns=self._image_names())

    def _one_source(self) -> tuple[Any, int]:
        check_is_fitted(self)
        sources = self._sources()
        if len(sources) > 1:
            raise ParameterError(f"{len(sources)} sources or sizes of chips", expected="one")
        return sources[0][1], sources[0][2]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns that come out."""
        check_is_fitted(self)
        return np.asarray([*self._image_names(), *self._coordinate_names(), *self.keep], dtype=object)

    def _try_out(self) -> None:
        """Encode a chip and reduce features once; raises where a part of the fit is missing or of another shape."""
        for encoder in self.encoders_:
            if hasattr(type(encoder), "_try_out"):
                encoder._try_out()
        scores = self.reduction_.apply(np.zeros((1, len(self.feature_names_))))
        names = self.get_feature_names_out()
        if scores.shape[1] != len(self._image_names()) or len(names) < scores.shape[1]:
            raise ValueError(f"{scores.shape[1]} components and {len(names)} names")

    def fitted_sources(self) -> list[tuple[Any, Any]]:
        """Each imagery with the encoder that was fitted on it; with several sizes, each as often."""
        check_is_fitted(self)
        return [(image, encoder) for (_, image, _), encoder in zip(self._sources(), self.encoders_, strict=True)]

    # ------------------------------------------------------------------ parts
    def _sources(self) -> list[tuple[str, Any, int]]:
        """Every (name, imagery, size in pixels); parameters are checked here."""
        if self.on_invalid not in ("raise", "mask"):
            raise ParameterError(f"on_invalid={self.on_invalid!r}", expected="'raise' or 'mask'")
        if self.dense not in ("auto", True, False):
            raise ParameterError(f"dense={self.dense!r}", expected="'auto', True or False")
        if self.coordinates not in (False, True, "smooth"):
            raise ParameterError(f"coordinates={self.coordinates!r}", expected="True, False or 'smooth'")
        if not 0 <= self.min_valid <= 1:
            raise ParameterError(f"min_valid={self.min_valid}", expected="a share between 0 and 1")
        if both := set(self._coordinate_names()) & set(self.keep):
            name = min(both)
            raise ParameterError(f"keep names {name!r}, a coordinate", expected="another name, or coordinates=False")
        if self.n_components is not None and not self.n_components > 0:
            raise ParameterError(f"n_components={self.n_components}", expected="a positive number, or None")
        images = dict(self.imagery) if isinstance(self.imagery, Mapping) else {"": self.imagery}
        lengths = np.atleast_1d(np.asarray(self.size_m, dtype=float))
        if not images or lengths.ndim != 1 or not len(lengths) or not (lengths > 0).all():
            raise ParameterError(f"size_m={self.size_m!r} with {len(images)} sources", expected="metres, above 0")
        for name, image in images.items():
            if not hasattr(image, "iter_chips"):
                raise ParameterError(
                    f"imagery {name!r} is a {type(image).__name__}".replace(" ''", ""),
                    expected="what causalsat.open_imagery returns",
                    todo="imagery=causalsat.open_imagery(path)",
                )
        return [
            (f"{name}_{length:g}m".lstrip("_"), image, image.size_px(float(length)))
            for name, image in images.items()
            for length in lengths
        ]

    def _coordinates(self, geometry: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """East and north of places; longitudes run on across 180 degrees, around the training places."""
        east, north = self._sources()[0][1].grid.points(geometry)
        middle = getattr(self, "middle_", None)
        if middle is None:
            return east, north
        return np.where(np.abs(east - middle) > 180, middle + (east - middle + 180) % 360 - 180, east), north

    def _bar(self, total: int) -> Any:
        return progress_bar(total=total, desc="encoding places", unit="place", show=self.progress)

    def _fit_sources(
        self, sources: Any, places: _places.Places, y: ArrayLike | None, roles: dict[str, Any]
    ) -> list[_places.Encoded]:
        """Fit an encoder for each source and encode the places; without labels once for all fits of a block."""
        encoders = [RandomConvFeatures() if self.encoder is None else as_transformer(self.encoder) for _ in sources]
        self.encoders_: list[Any] = encoders

        def fit(of: _places.Places) -> list[_places.Encoded]:
            trained_on = {"y": y, **roles, "unit_place": of.unit_place} if self.requests_roles else None
            with self._bar(len(of) * len(sources)) as bar:
                return [
                    self._fit_source(image, encoder, of.geometry, windows, size, bar, trained_on)
                    for (_, image, size), encoder, windows in zip(sources, encoders, of.windows, strict=True)
                ]

        shared = None if self.requests_roles else shared_fit(sources, encoders, places, self.min_valid, fit)
        if shared is None:
            return fit(places)
        self.encoders_, encoded = shared
        return encoded

    def _fit_source(
        self,
        imagery: Any,
        encoder: Any,
        geometry: Any,
        windows: NDArray[np.int64],
        size: int,
        bar: Any,
        trained_on: dict[str, Any] | None = None,
    ) -> _places.Encoded:
        """Fit one encoder and encode its places: chips are read once where they fit in memory."""
        layers = len(imagery.bands) * max(len(imagery.dates), 1)
        most = max(2, _FIT_BYTES // (4 * layers * size**2))
        chosen = np.arange(len(geometry))
        if len(chosen) > most:
            chosen = np.sort(np.random.default_rng(0).choice(len(geometry), most, replace=False))
        chips: NDArray[np.float32] | None = None
        for position, part in _places.read_chips(imagery, geometry.iloc[chosen], size):
            if chips is None:
                chips = np.empty((len(chosen), *part.shape[1:]), dtype=np.float32)
            chips[position] = part
        assert chips is not None
        share = _places.valid_share(chips)
        if not (share >= max(self.min_valid, np.finfo(float).tiny)).any():
            raise ImageryError(
                f"none of the {len(chosen)} training places has {self.min_valid:.0%} valid pixels in imagery "
                f"{getattr(imagery, 'name', '')!r} within {size} pixels",
                expected="places on the imagery",
                todo="check coordinates, CRS, nodata value and mask; Study.check() shows where units lie",
            )
        good = share >= self.min_valid
        lonlat = _places.centres_of(imagery, windows[chosen], size) if hasattr(encoder, "reads_places") else None
        training = _places.as_chips(imagery, chips[good], None if lonlat is None else lonlat[good])
        crossfitted = None
        if trained_on is None:
            encoder.fit(training, None)  # a frozen encoder's fit has no default for y
        else:
            crossfitted = encoder.fit_transform(training, **_places.of_places(trained_on, chosen[good]))
        if hasattr(encoder, "learn_margin"):
            _places.learn_margin(imagery, encoder, windows[chosen[good]], size)
        if len(chosen) < len(geometry) or _places.looks_beyond(encoder):
            found = _places.encode_places(imagery, encoder, geometry, windows, size, dense=self.dense, bar=bar)
            if crossfitted is not None:
                found.features[chosen[good]] = crossfitted
            return found
        features = feature_array(encoder.transform(_places.as_chips(imagery, chips, lonlat)))
        if crossfitted is not None:
            features[good] = crossfitted
        bar.update(len(chosen))
        return _places.Encoded(features, share)

    def _join(
        self,
        encoded: Sequence[_places.Encoded],
        places: _places.Places,
        geometry: Any,
        owner: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Join sources side by side and judge which places are usable in all of them."""
        features = np.hstack([part.features for part in encoded])
        usable = np.ones(len(places), dtype=bool)
        for part in encoded:
            usable &= (part.valid >= self.min_valid) & np.isfinite(part.features).any(axis=1)
        lost = ~usable[places.unit_place]
        if owner is not None:  # a unit is lost where all of its positions are
            lost &= (np.bincount(owner, ~lost) == 0)[owner]
        if lost.any() and self.on_invalid == "raise":
            first = np.flatnonzero(lost)[0]
            share = min(part.valid[places.unit_place[first]] for part in encoded)
            raise ImageryError(
                f"{int(lost.sum())} of {len(lost)} units have too few valid pixels, the first at index "
                f"{geometry.index[first]!r} ({share:.0%} valid)",
                expected=f"at least {self.min_valid:.0%} valid pixels within the chip",
                todo="drop those units, pass on_invalid='mask' (image features become missing), or lower min_valid",
            )
        return features, usable

    def _feature_names(self, sources: Sequence[str], encoded: Sequence[_places.Encoded]) -> list[str]:
        """Names of the features before reduction: the encoders' own, or numbers, with the source where several."""
        names = []
        for source, encoder, part in zip(sources, self.encoders_, encoded, strict=True):
            own: Any = range(part.features.shape[1])
            if hasattr(encoder, "get_feature_names_out"):
                own = encoder.get_feature_names_out()
            names += [f"{source}_{name}" if len(sources) > 1 else str(name) for name in own]
        return names

    def _image_names(self) -> list[str]:
        if self.reduction_.components is not None:
            return [f"{self.prefix}{j}" for j in range(self.reduction_.n_out)]
        return [f"{self.prefix}_{name}" for name in self.feature_names_]

    def _coordinate_names(self) -> tuple[str, ...]:
        return names_of(self.coordinates)

    def _heads(self) -> list[Any]:
        """Each source's part of the projection, where all their encoders apply one before pooling; else None."""
        components = self.reduction_.components
        if components is None or not all(map(_places.looks_beyond, self.encoders_)):
            return [None] * len(self.encoders_)
        edges = np.cumsum([0, *(len(encoder.get_feature_names_out()) for encoder in self.encoders_)])
        whole = LinearHead(self.reduction_.mean, self.reduction_.weight)
        return [whole.part(int(a), int(b)) for a, b in pairwise(edges)]

    def _reduces_first(self) -> bool:
        """Whether the one encoder can reduce features before it pools them over a chip, and none is known already."""
        (encoder, *others), components = self.encoders_, self.reduction_.components
        return not others and components is not None and type(encoder) is RandomConvFeatures and not is_known(encoder)

    def _table(
        self,
        X: Any,
        features: NDArray[np.float64],
        usable: NDArray[np.bool_],
        places: _places.Places,
        *,
        reduced: bool = False,
    ) -> Any:
        import pandas as pd

        scores = np.full((len(places), self.reduction_.n_out), np.nan)
        scores[usable] = features[usable] if reduced else self.reduction_.apply(features[usable])
        table = pd.DataFrame(scores[places.unit_place], index=X.index, columns=self._image_names())
        if self.coordinates:
            east, north = self._coordinates(check_units(X))
            table[list(COORDINATES)] = np.column_stack([east, north])
            if self.coordinates == "smooth":
                table = table.assign(**waves(east, north, self.box_))
        for name in self.keep:
            table[name] = X[name]
        return table
