"""Encoders that are trained on outcomes and treatments, one for each fold of the cross-fitting."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone

from causalsat.encoders.random_conv.pyramid import PyramidFeatures
from causalsat.estimators.image_base import ImageFitData
from causalsat.exceptions import DataError

__all__ = ["FoldEncoders", "fit_encoder"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def fit_encoder(
    encoder: Any, data: ImageFitData, clusters: IntArray, fold: IntArray, seed: int
) -> tuple[Any, FloatArray, list[FloatArray] | None]:
    """The encoder of an :class:`causalsat.ImageConfounding`, fitted.

    Parameters
    ----------
    encoder : transformer of chips or None
        Cloned; None for :class:`causalsat.PyramidFeatures`.
    data : ImageFitData
        Images, outcome, treatment, covariates.
    clusters, fold : ndarray of int of shape (n,)
        Cluster and fold of each unit, for an encoder that is trained on outcomes.
    seed : int
        Of the default encoder.

    Returns
    -------
    encoder : transformer
        Fitted to all images, or :class:`FoldEncoders`.
    features : ndarray of shape (m, d)
        Of the distinct images; of a trained encoder, by encoders that have not seen their units.
    by_fold : list of ndarray of shape (n, d), or None
        Features of the units for each fold, of an encoder that is trained on outcomes.
    """
    images = data.images
    if np.isinf(np.asarray(images.chips)).any():
        raise DataError("infinite pixels (inf)", expected="finite numbers, or NaN where a pixel is invalid")
    fresh = PyramidFeatures(random_state=seed) if encoder is None else clone(encoder)
    if not getattr(fresh, "requests_roles", False):
        fitted = fresh.fit(images.chips)
        return fitted, np.asarray(fitted.transform(images.chips), dtype=np.float64), None
    trained = FoldEncoders(fresh)
    by_fold, held_out = trained.fit_folds(
        images.chips,
        data.y,
        data.treatment,
        unit_image=images.unit_image,
        clusters=clusters,
        fold=fold,
        covariates=data.X,
    )
    return trained, held_out, by_fold


class FoldEncoders(TransformerMixin, BaseEstimator):
    """A trained encoder for each fold, none of which has seen the outcomes and treatments of its fold.

    ``transform`` gives the mean of their features.

    Parameters
    ----------
    encoder : transformer of chips with ``requests_roles``
        Such as :class:`causalsat.LearnedFilters` or :class:`causalsat.SupervisedEncoder`; cloned for each fold.
    """

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def fit_folds(
        self,
        chips: Any,
        y: FloatArray,
        treatment: FloatArray,
        *,
        unit_image: IntArray,
        clusters: IntArray,
        fold: IntArray,
        covariates: FloatArray,
    ) -> tuple[list[FloatArray], FloatArray]:
        """Train, on the outcome less its regression on the covariates.

        Parameters
        ----------
        chips : DataArray of shape (m, [time,] band, y, x)
            Distinct images.
        y, treatment : ndarrays of shape (n,)
            Outcome and treatment of the units.
        unit_image, clusters, fold : ndarrays of int of shape (n,)
            Image, cluster and fold of each unit.
        covariates : ndarray of shape (n, q)
            Covariates.

        Returns
        -------
        by_fold : list of ndarray of shape (n, d)
            For each fold the features of all units by its encoder: the encoder's own cross-fitted ones for the units
            that it was trained on.
        held_out : ndarray of shape (m, d)
            Features of the images by encoders that have not seen their units.
        """
        self.encoders_: list[Any] = []
        by_fold: list[FloatArray] = []
        total, count = np.zeros((int(chips.shape[0]), 1)), np.zeros(int(chips.shape[0]))
        for k in np.unique(fold):
            held = fold == k
            images, place = np.unique(unit_image[~held], return_inverse=True)
            one = clone(self.encoder)
            trained = one.fit_transform(
                chips[images],
                _less_covariates(y, treatment, covariates, ~held)[~held],
                treatment=treatment[~held],
                groups=clusters[~held],
                unit_place=place.ravel(),
            )
            trained = np.asarray(trained, dtype=float)
            unseen, where = np.unique(unit_image[held], return_inverse=True)
            unseen_features = np.asarray(one.transform(chips[unseen]), dtype=float)
            features = np.empty((len(y), trained.shape[1]))
            features[~held], features[held] = trained[place.ravel()], unseen_features[where.ravel()]
            spread = np.zeros((len(count), trained.shape[1]))
            spread[unseen] = unseen_features
            total, count[unseen] = total + spread, count[unseen] + 1
            self.encoders_.append(one)
            by_fold.append(features)
        return by_fold, np.asarray(total / np.maximum(count, 1)[:, None])

    def fit(self, X: Any, y: ArrayLike | None = None) -> FoldEncoders:
        """Do nothing: the encoders are trained by ``fit_folds``."""
        return self

    def transform(self, X: Any) -> FloatArray:
        """Mean features of chips over the folds' encoders, shape (n, d)."""
        return np.asarray(np.mean([one.transform(X) for one in self.encoders_], axis=0), dtype=float)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the features."""
        return np.asarray(self.encoders_[0].get_feature_names_out(), dtype=object)


def _less_covariates(
    y: FloatArray, treatment: FloatArray, covariates: FloatArray, rows: NDArray[np.bool_]
) -> FloatArray:
    """Outcome less what a regression on treatment and covariates, fitted to some rows, gives to the covariates."""
    if not covariates.shape[1]:
        return y
    centred = covariates - covariates[rows].mean(axis=0)
    design = np.column_stack([np.ones(len(y)), treatment, centred])
    coef = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
    return np.asarray(y - centred @ coef[2:])
