"""Features from filters that are learned from outcomes: the strongest response of an image to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.core.inputs import check_flags, check_whole_numbers
from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.encoders.filters.levels import Level, coarser, make_level
from causalsat.encoders.filters.regression import TARGETS, Target, make_target
from causalsat.encoders.filters.search import Filter, follow, refine, search
from causalsat.encoders.networks.outcomes import OutcomeEncoder, Units
from causalsat.exceptions import ParameterError

__all__ = ["LearnedFilters"]

_LEAST_PX = 4
_BATCH = 64

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class LearnedFilters(OutcomeEncoder, ChipEncoder):
    r"""Strongest responses to filters that are learned from the outcome, and the bands' means and spreads.

    The outcome of a place may depend on one striking thing in its image. A filter k for that thing is found by
    regression: with :math:`x_{ip}` the patch of image i at place p, the model

    .. math:: Y_i = c + b T_i + \max_p \langle k, x_{ip} \rangle + e_i

    is linear in k once it is known where each image responds most. Regression on the patches that respond most and
    the search for them alternate, from coarse to fine, as in latent support vector machines (Felzenszwalb et al.
    2010). Small weights are pulled to zero (iteratively reweighted ridge regression; Daubechies et al. 2010). Extent
    and resolution of a filter are those that predict a third of the places, held out, best. Where no filter predicts
    them better than the treatment alone, its response is 0 everywhere.

    As with :class:`SupervisedEncoder`, ``fit_transform`` gives each training place the response of filters that were
    found without its fold of sites. ``transform`` takes filters found on all places. In
    :class:`ImageConfounding` all of this happens anew for each fold, without the fold's units. Training chips are
    held in memory.

    Parameters
    ----------
    n_filters : int, default 1
        Most filters for each target; each further one explains what the ones before leave.
    targets : str, default "outcome"
        What filters are found for, joined by "+": "outcome", "treatment" (what the filters before leave of it),
        "effect" (the treatment's effect; for randomised treatments).
    max_px : int, default 32
        Largest side of a filter in pixels.
    statistics : bool, default True
        Whether each band's mean and standard deviation are features too.
    n_folds : int, default 3
        Folds over sites. 1: training places get the responses of filters that were found on them too, in a third of
        the time; for outcomes that are nearly a function of the image.
    random_state : int, default 0
        Seed of the folds.

    Attributes
    ----------
    filters_ : list of ndarray of shape (date * band, s, s)
        Filters in the outcome's (treatment's) units per standard deviation of the bands; zeros where none was kept.
    levels_, signs_ : list of int
        How often images are halved before a filter is applied; 1 where the target rises with the strongest response,
        -1 where it falls.
    kept_ : list of bool
        Whether the filter predicted held-out places.
    folds_ : ndarray of shape (place,)
        Fold in which each training place was held out.
    band_mean_, band_sd_ : ndarray of shape (band,)
        Statistics of the training chips.

    References
    ----------
    Felzenszwalb, Girshick, McAllester and Ramanan (2010), "Object detection with discriminatively trained part-based
    models"; Daubechies, DeVore, Fornasier and Gunturk (2010), "Iteratively reweighted least squares minimization for
    sparse recovery".

    Examples
    --------
    >>> from causalsat.simulate import kernel_confounding
    >>> data = kernel_confounding(4, 200, 32)
    >>> encoder = LearnedFilters(max_px=4).fit(data.images, data.outcome, treatment=data.treatment)
    >>> encoder.get_feature_names_out().tolist()
    ['outcome0', 'mean_b0', 'sd_b0']
    >>> bool(np.corrcoef(encoder.transform(data.images)[:, 0], data.confounder)[0, 1] > 0.99)
    True
    """

    def __init__(
        self,
        n_filters: int = 1,
        targets: str = "outcome",
        *,
        max_px: int = 32,
        statistics: bool = True,
        n_folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.n_filters = n_filters
        self.targets = targets
        self.max_px = max_px
        self.statistics = statistics
        self.n_folds = n_folds
        self.random_state = random_state

    # ------------------------------------------------------------------ fit
    def _learn(self, X: Any, units: Units) -> FloatArray:
        view = _chips.open_chips(X, minimum_px=_LEAST_PX)
        outcome, t, place, _ = units
        chips = view.take(slice(None))
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        self._remember(view)
        order, of_place = units.shuffled_sites(self.random_state), units.site_of_places(len(chips))
        self.folds_: IntArray = (order % self.n_folds)[of_place]
        held = self.folds_ == 0 if self.n_folds > 1 else (order % 3 == 0)[of_place]
        levels = self._levels(chips, _n_levels(min(view.size), self.max_px))
        crossed = np.empty((len(chips), 0))
        found: list[Filter] = []
        self.kept_: list[bool] = []
        for name in self._target_of_each():
            target = make_target(name, outcome, t, place, crossed)
            kept, one, responses = self._pursue(levels, target, held)
            self.kept_.append(kept)
            found.append(one)
            crossed = np.column_stack([crossed, responses])
        self.filters_ = [one.kernel.astype(np.float32) for one in found]
        self.levels_, self.signs_ = [one.level for one in found], [one.sign for one in found]
        return self._with_statistics(crossed, levels[0])

    def _check_parameters(self) -> None:
        check_flags(self, ["statistics"])
        check_whole_numbers(self, {"n_filters": 1, "n_folds": 1, "max_px": _LEAST_PX})
        targets = str(self.targets).split("+")
        if not set(targets) <= set(TARGETS) or len(set(targets)) < len(targets):
            raise ParameterError(f"targets={self.targets!r}", expected=f"some of {', '.join(TARGETS)}, joined by '+'")

    def _target_of_each(self) -> list[str]:
        return [name for name in self.targets.split("+") for _ in range(self.n_filters)]

    def _pursue(
        self, levels: Sequence[Level], target: Target, held: NDArray[np.bool_]
    ) -> tuple[bool, Filter, FloatArray]:
        """Whether a filter predicts held-out places, the filter of all places, and each place's response."""
        everywhere = np.arange(len(levels[0]))
        plan, first = search(levels, target, held[target.rows], self.max_px)
        if plan is None:
            return False, Filter(np.zeros_like(first.kernel), first.level, 1), np.zeros(len(everywhere))
        whole, own = refine(levels, target, first)
        responses = np.empty(len(everywhere))
        if self.n_folds == 1:
            responses[target.rows] = own
            others = np.setdiff1d(everywhere, target.rows)
            if len(others):
                responses[others] = whole.respond(levels, others)
            return True, whole, responses
        for k in range(self.n_folds):
            out = self.folds_ == k
            one = follow(levels, target.take(~out[target.rows]), plan) if k else first
            responses[out] = one.respond(levels, everywhere[out])
        return True, whole, responses

    # ------------------------------------------------------------------ features
    def _levels(self, chips: Float32Array, n_levels: int) -> list[Level]:
        """Resolutions of chips (n, time, band, y, x), the dates' bands one after the other."""
        scaled, valid = self._standardise(chips)
        whole = np.asarray(valid.all(axis=(1, 2)))
        levels = [make_level(scaled.reshape(len(chips), -1, *chips.shape[-2:]), whole)]
        while len(levels) < n_levels:
            levels.append(coarser(levels[-1]))
        return levels

    def _with_statistics(self, responses: FloatArray, level: Level) -> FloatArray:
        """Responses beside each band's mean and standard deviation; NaN without a valid pixel."""
        n, bands, rows, cols = level.images.shape
        count = np.full(n, rows * cols) if level.valid is None else level.valid.sum(axis=(1, 2))
        if not self.statistics:
            return np.where(count[:, None] > 0, responses, np.nan)
        known = np.maximum(count, 1)[:, None]
        mean = level.images.sum(axis=(2, 3)).astype(float) / known
        square = np.einsum("nbyx,nbyx->nb", level.images, level.images, dtype=np.float64) / known
        times = bands // len(self.band_sd_)
        centre, scale = np.tile(self.band_mean_, times), np.tile(self.band_sd_, times)
        spread = scale * np.sqrt(np.maximum(square - mean**2, 0.0))
        out = np.column_stack([responses, centre + scale * mean, spread])
        out[count == 0] = np.nan
        return out

    def _minimum_px(self) -> int:
        return max(f.shape[-1] << v for f, v in zip(self.filters_, self.levels_, strict=True))

    def _encode_view(self, view: ChipView) -> FloatArray:
        parts = []
        for _, chips in view.batches(_BATCH):
            levels, rows = self._levels(chips, 1 + max(self.levels_)), np.arange(len(chips))
            zipped = zip(self.filters_, self.levels_, self.signs_, strict=True)
            found = [Filter(f.astype(float), v, s).respond(levels, rows) for f, v, s in zipped]
            parts.append(self._with_statistics(np.column_stack(found), levels[0]))
        return np.concatenate(parts)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """``outcome0``, ... for the filters, ``mean_<band>`` and ``sd_<band>`` (with ``t<date>_`` before them)."""
        check_is_fitted(self)
        names = [f"{name}{j}" for name in str(self.targets).split("+") for j in range(self.n_filters)]
        shown = ("mean", "sd") if self.statistics else ()
        more = [name for what in shown for name in self._by_date([f"{what}_{b}" for b in self.bands_])]
        return np.asarray([*names, *more], dtype=object)


def _n_levels(side: int, max_px: int) -> int:
    """Levels down to images of 16 pixels, as far as filters of ``max_px`` pixels need."""
    levels = 1
    while side >> levels >= 16 and _LEAST_PX << levels <= max_px:
        levels += 1
    return levels
