"""What encoders that are trained on outcomes and treatments share."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin

from causalsat.core.fitting import unfitted_unless_finished
from causalsat.exceptions import DataError, ParameterError

__all__ = ["AnsweringEncoder", "OutcomeEncoder", "Units"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Units(NamedTuple):
    """Outcome, treatment, place and site of each training unit, checked."""

    outcome: FloatArray
    treatment: FloatArray
    place: IntArray
    site: IntArray

    def site_of_places(self, n_places: int) -> IntArray:
        """Site of each place; places without a unit count to the first site."""
        out = np.zeros(n_places, dtype=np.int64)
        out[self.place] = self.site
        return out

    def shuffled_sites(self, random_state: int) -> IntArray:
        """A random number of each site, of which folds are the remainders."""
        return np.random.default_rng(random_state).permutation(int(self.site.max()) + 1)


class OutcomeEncoder(TransformerMixin):
    """A transformer of chips that is trained on outcomes, with features of the training places that are cross-fitted.

    A subclass has ``n_folds`` and ``_learn``, which gives those features.
    """

    requests_roles: ClassVar[bool] = True
    n_folds: int

    def fit(self, X: Any, y: ArrayLike | None = None, **roles: Any) -> Self:
        """Train on outcomes; the parameters are those of :meth:`fit_transform`."""
        self.fit_transform(X, y, **roles)
        return self

    def fit_transform(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        treatment: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        unit_place: ArrayLike | None = None,
    ) -> FloatArray:
        """Cross-fitted features of the training chips, shape (place, features).

        Parameters
        ----------
        X : ndarray or DataArray of shape (place, [time,] band, y, x)
            Training chips; NaN marks invalid pixels.
        y, treatment : array of shape (unit,)
            Outcome and treatment.
        groups : array of shape (unit,), optional
            Sites: never split across folds, nor between training and what stops it early.
        unit_place : ndarray of int of shape (unit,), optional
            Which chip is each unit's; by default one chip a unit.

        Raises
        ------
        DataError
            Without outcome or treatment, or where they do not fit the chips.
        ParameterError
            If a parameter is outside its domain.
        """
        self._check_parameters()
        units = _units(X, y, treatment, groups, unit_place, max(self.n_folds, 2))
        with unfitted_unless_finished(self):
            return self._learn(X, units)

    def _check_parameters(self) -> None:
        raise NotImplementedError

    def _learn(self, X: Any, units: Units) -> FloatArray:
        raise NotImplementedError


class AnsweringEncoder(OutcomeEncoder):
    """An encoder whose features are the answers of networks: outcome, effect and, where asked, treatment."""

    targets: str

    def _check_targets(self) -> None:
        if self.targets not in ("effect", "effect+treatment"):
            raise ParameterError(f"targets={self.targets!r}", expected="'effect' or 'effect+treatment'")

    @staticmethod
    def _in_units_of(answers: FloatArray, centre: float, scale: float) -> FloatArray:
        """Answers about a standardised outcome in the outcome's units; e as a probability."""
        answers[:, 0] = centre + scale * answers[:, 0]
        answers[:, 1] *= scale
        if answers.shape[1] > 2:
            answers[:, 2] = 1 / (1 + np.exp(-answers[:, 2]))
        return answers

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """``mu``, ``tau`` and, where the treatment is predicted, ``e``."""
        names = ["mu", "tau", *(["e"] if self.targets == "effect+treatment" else [])]
        return np.asarray(names, dtype=object)


def _units(X: Any, y: Any, treatment: Any, groups: Any, unit_place: Any, n_folds: int) -> Units:
    """Outcome, treatment, place and site of each unit, checked; a place of several sites makes them one."""
    if y is None or treatment is None:
        raise DataError(
            "a supervised encoder without outcome or treatment",
            expected="y and treatment of the training units",
            todo="fit it through Study.fit, crossfit_effects or compare, or pass fit_transform(X, y, treatment=...)",
        )
    outcome, t = np.asarray(y, dtype=float), np.asarray(treatment, dtype=float)
    place = np.arange(len(outcome)) if unit_place is None else np.asarray(unit_place, dtype=np.int64)
    if not len(outcome) == len(t) == len(place) or place.max(initial=-1) >= X.shape[0]:
        raise DataError(f"{len(outcome)} outcomes, {len(t)} treatments", expected="one of each a unit of the chips")
    if not (np.isfinite(outcome).all() and np.isfinite(t).all()):
        raise DataError("missing outcomes or treatments", expected="finite numbers", todo="drop those units")
    label = place if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_places, n_labels = int(X.shape[0]), int(label.max()) + 1
    links = coo_matrix((np.ones(len(place)), (place, n_places + label)), shape=(n_places + n_labels,) * 2)
    site = np.unique(connected_components(links, directed=False)[1][place], return_inverse=True)[1].ravel()
    if site.max() + 1 < 2 * n_folds:
        raise DataError(f"{site.max() + 1} sites for {n_folds} folds", expected="at least two sites a fold")
    return Units(outcome, t, place, site.astype(np.int64))
