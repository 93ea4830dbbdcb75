"""Which arm is best where, with its probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.base import effect, final_estimator
from causalsat.core import memory
from causalsat.core.tables import Tabular
from causalsat.exceptions import ParameterError

__all__ = ["BestArm", "best_arm"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BestArm(Tabular):
    """Which arm is best for each unit, with its probability.

    Attributes
    ----------
    arm : ndarray of str of shape (n,)
        Arm with the best posterior mean outcome.
    probability : ndarray of shape (n,)
        Probability that it is the best.
    probabilities : DataFrame of shape (n, K)
        Probability of each arm to be the best; rows sum to 1.
    gain : ndarray of shape (n,)
        Posterior mean effect of the arm against control.
    """

    arm: NDArray[Any]
    probability: FloatArray
    probabilities: pd.DataFrame
    gain: FloatArray

    def to_dataframe(self) -> pd.DataFrame:
        """Columns ``arm``, ``probability``, ``gain`` and one for each arm's probability."""
        first = pd.DataFrame(
            {"arm": self.arm, "probability": self.probability, "gain": self.gain}, index=self.probabilities.index
        )
        return pd.concat([first, self.probabilities.add_prefix("P ")], axis=1)

    def _notes(self) -> list[str]:
        counts = pd.Series(self.arm).value_counts()
        return [", ".join(f"{name}: best for {n:,} units" for name, n in counts.items())]


@dataclass(frozen=True, eq=False)
class _Part:
    """Some units: probabilities and means (n, K), labels, and how many draws were held."""

    share: FloatArray
    mean: FloatArray
    index: NDArray[Any]
    n_draws: int


def best_arm(model: Any, X: Any, *, higher_is_better: bool = True) -> BestArm:
    """Which arm has the best expected outcome for each unit, with its probability.

    Costs do not enter. The probability is that of the conditional average effects, and not of a unit's own outcome.

    Parameters
    ----------
    model : ArmsEffect or Pipeline
        Fitted to several arms.
    X : array, DataFrame or GeoDataFrame of n rows
        Units, in the form that the model was fitted on.
    higher_is_better : bool
        Whether a larger outcome is better.

    Returns
    -------
    BestArm

    Raises
    ------
    ParameterError
        If the model was not fitted to arms.

    Examples
    --------
    >>> from causalsat import ArmsEffect
    >>> rng = np.random.default_rng(0)
    >>> X, arm = rng.standard_normal((900, 1)), np.array(["control", "cash", "goats"])[np.arange(900) % 3]
    >>> y = (arm == "cash") * X[:, 0] + (arm == "goats") * 0.5 + 0.5 * rng.standard_normal(900)
    >>> found = best_arm(ArmsEffect().fit(X, y, treatment=arm), np.array([[2.0], [-2.0]]))
    >>> found.arm.tolist(), bool((found.probability > 0.9).all())
    (['cash', 'goats'], True)
    """
    _, estimator = final_estimator(model)
    arms = getattr(estimator, "arms_", None)
    if arms is None:
        raise ParameterError(
            f"a model that ends in {type(estimator).__name__}, which was not fitted to arms",
            expected="an ArmsEffect, or a Pipeline that ends in one",
            todo="study.fit(image_model(study, ArmsEffect(modifiers='img*'))), or the model of analyse(study)",
        )
    sign = 1.0 if higher_is_better else -1.0

    def of_part(part: Any, rows: slice) -> _Part:
        posteriors = [effect(model, part, treatment=name, baseline=arms[0]) for name in arms]
        draws = np.stack([p.draws for p in posteriors], axis=-1)
        best = (sign * draws).argmax(axis=-1)
        share = np.stack([(best == k).mean(axis=0) for k in range(len(arms))], axis=1)
        return _Part(share, draws.mean(axis=0), np.asarray(posteriors[0].index), draws.shape[0] * len(arms))

    parts = list(memory.in_chunks(X, of_part))
    share, mean = np.concatenate([p.share for p in parts]), np.concatenate([p.mean for p in parts])
    chosen = (sign * mean).argmax(axis=1)
    rows = np.arange(len(chosen))
    index = pd.Index(np.concatenate([p.index for p in parts]), name="unit")
    table = pd.DataFrame(share, columns=list(arms), index=index)
    return BestArm(np.asarray(arms, dtype=object)[chosen], share[rows, chosen], table, mean[rows, chosen])
