"""Which parts of an image move a prediction: segments, occluded one by one, with the posterior of the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat import base, imagery
from causalsat.core.inputs import unit_index
from causalsat.encoders import ImageEncoder
from causalsat.encoders.scale import LEVELS, known_scale, scale_checked
from causalsat.exceptions import ImageryError, ParameterError
from causalsat.plots import plot_segments
from causalsat.posterior import draw_quantiles

__all__ = ["SegmentImportance", "segment_importance"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Chips = NDArray[np.float32]
Draws = Callable[..., FloatArray]  # images of one unit, and row=, its position in X, to draws (draw, image)

WHAT = ("effect", "cluster", "propensity")
FILLS = ("median", "surroundings")


@dataclass(frozen=True, eq=False)
class SegmentImportance:
    """What :func:`segment_importance` found.

    Attributes
    ----------
    table : DataFrame
        One row a segment, index (unit, segment): ``pixels``, its ``share`` of the valid pixels; ``mean, sd, lower,
        upper`` of the change, ``prob_positive``; then the segment's mean of each band or spectral index.
    labels : ndarray of int of shape (n, y, x)
        Segment of each pixel, from 1; 0 where the image is invalid.
    chips : ndarray of shape (n, [time,] band, y, x)
        The images.
    what : str
        What changes, in words.
    level : float
        Level of the intervals.
    """

    table: pd.DataFrame
    labels: IntArray
    chips: Chips
    what: str
    level: float

    def describe(self, n_groups: int = 3) -> pd.DataFrame:
        """What kinds of segment raise and lower the prediction: means of each group of segments, by their change.

        Parameters
        ----------
        n_groups : int
            Groups of about equal numbers of segments, from the lowest to the highest change.
        """
        if not 2 <= n_groups <= len(self.table):
            raise ParameterError(f"n_groups={n_groups}", expected=f"from 2 to {len(self.table)} segments")
        rank = np.argsort(np.argsort(self.table["mean"].to_numpy(), kind="stable"), kind="stable")
        group = pd.Index((rank * n_groups) // len(rank) + 1, name="group")
        means = self.table.drop(columns=["lower", "upper", "prob_positive", "sd"]).groupby(group).mean()
        means.insert(0, "n", np.bincount(group, minlength=n_groups + 1)[1:])
        return means.rename(columns={"mean": "change"})

    def plot(self, *, n: int = 4, bands: Any = None) -> Any:
        """Sheet of images with their segments coloured by the change; see :func:`causalsat.plots.plot_segments`."""
        return plot_segments(self, n=n, bands=bands)

    def __repr__(self) -> str:
        """Numbers of images and segments, and the largest change."""
        position = int(self.table["mean"].abs().to_numpy().argmax())
        row, (unit, segment) = self.table.iloc[position], list(self.table.index)[position]
        return (
            f"SegmentImportance of {len(self.chips)} images, {len(self.table)} segments: change of {self.what}; the "
            f"largest {row['mean']:.3g} ({row['lower']:.3g} to {row['upper']:.3g}), segment {segment} of unit {unit}"
        )


def segment_importance(
    model: Any,
    X: Any,
    *,
    what: str = "effect",
    cluster: int | None = None,
    n_segments: int = 20,
    compactness: float = 0.5,
    fill: str = "median",
    indices: Sequence[str] = (),
    level: float = 0.9,
) -> SegmentImportance:
    """How much each segment of an image moves a prediction, by occluding it, with the posterior of the change.

    Images are cut into superpixels of alike, neighbouring pixels (SLIC). Each is replaced in turn, the image is
    encoded again, and the difference of the two predictions is taken draw by draw: positive where what stands in the
    segment raises the prediction. Changes of segments need not add up to the change of the whole image.

    Parameters
    ----------
    model : Pipeline that starts with an ImageEncoder, ImageEffectClusters or ImageConfounding
        Fitted.
    X : GeoDataFrame of n units, or chips
        Units whose images are explained; a few dozen, since each takes ``n_segments`` encodings. Chips for a model
        that was fitted on chips.
    what : {"effect", "cluster", "propensity"}
        The effect, in units of the outcome; the probability of a type of :class:`causalsat.ImageEffectClusters`; the
        probability of treatment of :class:`causalsat.ImageConfounding`, which has no posterior (``sd`` is 0).
    cluster : int, optional
        The type, from 1 to K, where ``what="cluster"``; the last, with the largest effect, unless given.
    n_segments : int
        About so many segments an image.
    compactness : float
        Large: squares; small: shapes that follow the pixels, down to single pixels' noise. Bands are standardised
        and their differences averaged before, so that its meaning depends on neither units nor number of bands.
    fill : {"median", "surroundings"}
        What replaces a segment: each band's median over the images of the fit (over these images, where the encoder
        does not know it), or the mean of the image's other pixels.
    indices : sequence of str
        Spectral indices by which segments are described (:func:`causalsat.imagery.indices`), for imagery whose bands
        are named; the means of the bands themselves stand in the table always.
    level : float
        Level of the intervals.

    Returns
    -------
    SegmentImportance

    Raises
    ------
    ParameterError
        If the model has no images, several sources of them, or an encoder that looks beyond its chips.
    ImageryError
        If an image has no valid pixel.

    Examples
    --------
    >>> import warnings
    >>> import causalsat
    >>> from causalsat.analysis import segment_importance
    >>> trial = causalsat.simulate.satellite_trial(n_units=120, n_sites=12, size_px=192, seed=3)
    >>> imagery = causalsat.open_imagery(trial.imagery, scale=1e-4)
    >>> study = causalsat.Study(trial.units, outcome="outcome", treatment="treatment", imagery=imagery)
    >>> model = causalsat.image_model(study, causalsat.DoublyRobustEffect(), n_components=2)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     fitted = study.fit(model)
    >>> found = segment_importance(fitted, study.X.iloc[:2], n_segments=8, indices=["ndvi"])
    >>> list(found.describe().columns)
    ['n', 'pixels', 'share', 'change', 'blue', 'green', 'red', 'nir', 'swir1', 'swir2', 'ndvi']

    References
    ----------
    Achanta et al. (2012). SLIC superpixels compared to state-of-the-art superpixel methods. IEEE PAMI 34.
    """
    _check(what, n_segments, compactness, fill, level)
    chips, names, draws = _reader(model, X, what, cluster)
    index = unit_index(X)
    valid = np.asarray(np.isfinite(chips).reshape(len(chips), -1, *chips.shape[-2:]).all(axis=1), dtype=bool)
    if not valid.any(axis=(1, 2)).all():
        raise ImageryError(
            f"{int((~valid.any(axis=(1, 2))).sum())} of {len(chips)} images have no valid pixel",
            expected="images to explain",
            todo="leave those units out",
        )
    labels = np.stack([segments_of(c, v, n_segments, compactness) for c, v in zip(chips, valid, strict=True)])
    typical = _typical(model, chips) if fill == "median" else None
    parts = [_of_image(chips[i], labels[i], typical, partial(draws, row=i), level) for i in range(len(chips))]
    described = [_means(chips[i], labels[i], names, indices) for i in range(len(chips))]
    table = pd.concat(
        [a.join(b) for a, b in zip(parts, described, strict=True)], keys=index, names=["unit", "segment"]
    )
    words = {"effect": "the effect", "propensity": "the propensity", "cluster": "the type's probability"}
    return SegmentImportance(table, labels, chips, words[what], level)


def segments_of(chip: Chips, valid: NDArray[np.bool_], n_segments: int, compactness: float) -> IntArray:
    """Superpixels of an image ([time,] band, y, x), labels from 1, 0 where it is invalid.

    Examples
    --------
    >>> chip = np.repeat([0.0, 1.0], 8)[None, None].repeat(16, axis=1).astype(np.float32)
    >>> found = segments_of(chip, np.ones((16, 16), dtype=bool), 4, 0.1)
    >>> len(np.unique(found)), bool(set(found[:, :8].flat) & set(found[:, 8:].flat))
    (4, False)
    """
    from skimage.measure import label
    from skimage.segmentation import slic

    pixels = chip.reshape(-1, *chip.shape[-2:]).transpose(1, 2, 0).astype(float)
    mean, sd = pixels[valid].mean(axis=0), pixels[valid].std(axis=0)
    scale = np.where(sd > 0, sd, 1.0) * np.sqrt(pixels.shape[2])
    standard = np.where(valid[..., None], (pixels - mean) / scale, 0.0)
    mask = None if valid.all() else valid
    found = slic(
        standard, n_segments=n_segments, compactness=compactness, channel_axis=-1, mask=mask, start_label=1,
        convert2lab=False,
    )  # fmt: skip
    joined = label(found, background=0, connectivity=1)  # with a mask, a segment may fall apart
    return np.asarray(joined, dtype=np.int64)


# ---------------------------------------------------------------------- one image
def _of_image(
    chip: Chips, labels: IntArray, typical: FloatArray | None, draws: Callable[[Chips], FloatArray], level: float
) -> pd.DataFrame:
    """Change of the prediction by each segment of one image, a row a segment."""
    ids = np.arange(1, labels.max() + 1)
    occluded = np.repeat(chip[None], len(ids) + 1, axis=0)
    for k in ids:
        inside = labels == k
        others = (labels > 0) & ~inside
        filling = typical
        if filling is None:
            filling = chip[..., others if others.any() else inside].mean(axis=-1)
        occluded[k][..., inside] = np.asarray(filling, dtype=np.float32)[..., None]
    found = draws(occluded)
    change = found[:, :1] - found[:, 1:]
    lower, upper = draw_quantiles(change, [(1 - level) / 2, (1 + level) / 2], axis=0)
    pixels = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:]
    columns = {
        "pixels": pixels,
        "share": pixels / pixels.sum(),
        "mean": change.mean(axis=0),
        "sd": change.std(axis=0, ddof=1) if len(change) > 1 else np.zeros(len(ids)),
        "lower": lower,
        "upper": upper,
        "prob_positive": (change > 0).mean(axis=0),
    }
    return pd.DataFrame(columns, index=pd.Index(ids, name="segment"))


def _means(chip: Chips, labels: IntArray, names: Sequence[str], indices: Sequence[str]) -> pd.DataFrame:
    """Mean of each band, and of each index, in each segment; of a sequence those of the last date."""
    import xarray as xr

    frame = chip[-1] if chip.ndim == 4 else chip
    layers = {str(name): frame[j] for j, name in enumerate(names)}
    if len(indices):
        named = xr.DataArray(frame, dims=("band", "y", "x"), coords={"band": list(names)})
        found = imagery.indices(named, list(indices)).values
        layers |= {str(name): found[j] for j, name in enumerate(indices)}
    ids = np.arange(1, labels.max() + 1)
    rows = {name: [float(np.nanmean(values[labels == k])) for k in ids] for name, values in layers.items()}
    return pd.DataFrame(rows, index=pd.Index(ids, name="segment"))


def _typical(model: Any, chips: Chips) -> FloatArray:
    """Median of each band at fit, shape ([time,] band)."""
    scale = known_scale(model.steps[0][1] if hasattr(model, "steps") else model)
    lead = chips.shape[1:-2]
    if scale is None or len(scale.quantiles) != lead[-1]:
        return np.asarray(np.nanmedian(chips, axis=(0, -2, -1)))
    return np.broadcast_to(scale.quantiles[:, LEVELS.index(0.5)], lead)


# ---------------------------------------------------------------------- models
def _check(what: str, n_segments: int, compactness: float, fill: str, level: float) -> None:
    if what not in WHAT:
        raise ParameterError(f"what={what!r}", expected=" or ".join(map(repr, WHAT)))
    if fill not in FILLS:
        raise ParameterError(f"fill={fill!r}", expected=" or ".join(map(repr, FILLS)))
    if n_segments < 2:
        raise ParameterError(f"n_segments={n_segments}", expected="at least 2")
    if not compactness > 0:
        raise ParameterError(f"compactness={compactness}", expected="a positive number, such as 0.5")
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r}", expected="a number between 0 and 1, such as 0.9")


def _reader(model: Any, X: Any, what: str, cluster: int | None) -> tuple[Chips, list[str], Draws]:
    """Images of X, names of their bands, and a function from altered images to draws of what they change."""
    own = {"cluster": "cluster_probabilities", "propensity": "predict_propensity"}.get(what)
    if own is not None and not hasattr(model, own):
        fitting = {"cluster": "ImageEffectClusters", "propensity": "ImageConfounding"}[what]
        raise ParameterError(f"what={what!r} of a {type(model).__name__}", expected=f"a fitted {fitting}")
    if hasattr(model, "_read_unit_chips"):
        return _of_image_estimator(model, X, what, cluster)
    steps = getattr(model, "steps", None)
    if not steps or not isinstance(steps[0][1], ImageEncoder):
        raise ParameterError(
            f"a {type(model).__name__}, which reads no images",
            expected="a Pipeline that starts with an ImageEncoder, ImageEffectClusters or ImageConfounding",
        )
    return _of_pipeline(model, X)


def _of_pipeline(model: Any, X: Any) -> tuple[Chips, list[str], Draws]:
    encoder: ImageEncoder = model.steps[0][1]
    _, estimator = base.final_estimator(model)
    chips = encoder.read_chips(X)
    own = encoder.transform(X)

    def draws(images: Chips, row: int) -> FloatArray:
        features = own.iloc[[row] * len(images)].copy()
        altered = encoder.transform_chips(images)
        features[list(altered.columns)] = altered.to_numpy()
        for _, step in model.steps[1:-1]:
            features = step.transform(features)
        with scale_checked():
            return np.asarray(estimator.effect(features).draws)

    return chips, [str(band) for band in encoder.fitted_sources()[0][0].bands], draws


def _of_image_estimator(model: Any, X: Any, what: str, cluster: int | None) -> tuple[Chips, list[str], Draws]:
    import xarray as xr

    chips = model._read_unit_chips(X)
    names = [str(band) for band in getattr(model.imagery, "bands", ())]
    if not names and hasattr(X, "coords") and "band" in X.coords:
        names = [str(band) for band in X["band"].values]
    names = names or [f"band {j}" for j in range(chips.shape[-3])]
    table = {name: np.asarray(X[name]) for name in model.covariates if name in _names(X)}
    dims = ("unit", "band", "y", "x") if chips.ndim == 4 else ("unit", "time", "band", "y", "x")
    k = int(getattr(model, "n_clusters_", 0) if cluster is None else cluster)
    if what == "cluster" and not 1 <= k <= model.n_clusters_:
        raise ParameterError(f"cluster={cluster!r}", expected=f"a type from 1 to {model.n_clusters_}")

    def draws(images: Chips, row: int) -> FloatArray:
        coords = {name: ("unit", np.repeat(values[row], len(images))) for name, values in table.items()}
        named = xr.DataArray(images, dims=dims, coords={"band": names, **coords})
        with scale_checked():
            if what == "effect":
                return np.asarray(model.effect(named).draws)
            if what == "propensity":
                return np.asarray(model.predict_propensity(named)[None])
            features, _ = model._design_features(named)
            return np.asarray(model._probabilities(features)[:, k - 1])

    return chips, names, draws


def _names(X: Any) -> set[str]:
    return {str(name) for name in (X.coords if hasattr(X, "coords") else getattr(X, "columns", ()))}
