"""What the outcomes of a study are worth: who responded, and what corrects an outcome that a model predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.design import Design
from causalsat.evaluation import (
    Compliance,
    LeeBounds,
    Nuisances,
    PredictionPowered,
    compliance,
    dr_scores,
    lee_bounds,
    prediction_powered,
)
from causalsat.inference.folds import split_folds
from causalsat.inference.response import Response, response_nuisances, response_scores
from causalsat.study.predicted import corrected_study, is_corrected
from causalsat.study.response import respondents, response_of

__all__ = ["Measured", "measure"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Measured:
    """Outcomes as an analysis uses them.

    Attributes
    ----------
    study : Study
        On which models are fitted: respondents with their weights, or with the corrected outcome.
    y : ndarray of shape (n,)
        Outcome of all units; where it is missing a number that nothing is fitted on.
    seen : ndarray of bool of shape (n,)
        Units with an outcome.
    design : Design
        Of all units, for fits on those with an outcome: the response weights are in its weights.
    response : Response or None
        Probabilities of response, where outcomes are missing.
    powered : PredictionPowered or None
        Corrected average effect, where a model predicted the outcome and a subset was measured.
    lee : LeeBounds or None
        Bounds without a model of response, where outcomes are missing.
    """

    study: Any
    y: FloatArray
    seen: NDArray[np.bool_]
    design: Design
    response: Response | None = None
    powered: PredictionPowered | None = None
    lee: LeeBounds | None = None

    def folds(self, splitters: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """The splitters, so that nothing is trained on units without an outcome."""
        if self.response is None:
            return list(splitters)
        return [_TrainOnSeen(cv, self.seen, self.design, seed) for cv, seed in zip(splitters, seeds, strict=True)]

    def scores(
        self, features: FloatArray, design: Design, nuisances: Callable[[], Nuisances]
    ) -> tuple[Nuisances, FloatArray]:
        """Nuisances and doubly robust scores of all units, with the response indicator where outcomes are missing."""
        if self.response is None:
            found = nuisances()
            return found, dr_scores(self.y, design.treatment, found)
        found = response_nuisances(features, np.where(self.seen, self.y, np.nan), self.response, design)
        return found, response_scores(self.y, design.treatment, found, self.response)

    def compliance(self) -> Compliance | None:
        """Take-up and the effect on compliers, where the study knows who took the treatment up.

        As the headline a difference in means within strata: of respondents with their weights where outcomes are
        missing, of corrected outcomes where a model predicted them.
        """
        if self.study.take_up is None:
            return None
        design = self.study.design
        covariates = None if design.randomised else pd.DataFrame(self.study.X[list(self.study.covariates)])
        return compliance(self.study.y, self.study.take_up, design=design, covariates=covariates)


@dataclass(frozen=True, eq=False)
class _TrainOnSeen:
    """Folds of a number or splitter, without units of no outcome in the training rows."""

    cv: Any
    seen: NDArray[np.bool_]
    design: Design
    seed: int

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[IntArray, IntArray]]:
        t, codes = self.design.treatment, self.design.clusters
        outcome = np.zeros(len(t)) if y is None else np.asarray(y, dtype=float)
        rng = np.random.default_rng(self.seed)
        for train, test in split_folds(self.cv, X, outcome, t, groups=groups, codes=codes, rng=rng):
            yield train[self.seen[train]], test


def measure(study: Any, features: Callable[[], FloatArray], *, n_folds: int, random_state: int) -> Measured:
    """What the outcomes of a study are worth.

    Parameters
    ----------
    study : Study
        Whose check found no error.
    features : callable
        Makes features without labels, (n, p), on which response may depend; called where outcomes are missing.
    n_folds, random_state : int
        Folds of the probabilities of response.
    """
    y, design = study.y, study.design
    if is_corrected(study):
        powered = prediction_powered(
            y,
            study.labelled,
            design.treatment,
            design.clusters,
            strata=design.strata if design.randomised else None,
            weights=design.weights,
        )
        return Measured(corrected_study(study), powered.outcome, np.ones(len(y), dtype=bool), design, powered=powered)
    seen = ~np.isnan(y)
    if seen.all():
        return Measured(study, y, seen, design)
    response = response_of(study, features(), random_state, n_folds)
    answered = respondents(study, np.empty((len(y), 0)), response)
    own = answered.design
    weights = np.zeros(len(y))
    weights[seen] = 1.0 if own.weights is None else own.weights
    probability = design.probability
    if own.stated_probability is not None:
        probability = np.full(len(y), own.stated_probability[0]) if probability is None else probability
    whole = replace(design, weights=weights, stated_probability=probability)
    lee = lee_bounds(y, design.treatment, groups=design.clusters, weights=design.weights)
    return Measured(answered, np.where(seen, y, 0.0), seen, whole, response=response, lee=lee)
