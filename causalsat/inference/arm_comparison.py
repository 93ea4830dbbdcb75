"""The comparison of several arms: contrasts of every pair, their joint test, and codes of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core import inputs
from causalsat.core.names import list_names, p_words, shown
from causalsat.core.tables import Tabular
from causalsat.core.treatment import arm_label, declared_arms
from causalsat.exceptions import ParameterError, TreatmentError
from causalsat.inference.arms import ArmMeans, arm_means, cells_of_arms
from causalsat.inference.robust import t_interval, t_p_value

__all__ = ["ArmComparison", "code_arms", "compare_arms"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArmComparison(Tabular):
    """Average effects of every arm against the control and against each other, jointly estimated.

    Attributes
    ----------
    arms : tuple of str
        Names of the arms, the control first.
    means : ndarray of shape (K,)
        Average outcome under each arm.
    covariance : ndarray of shape (K, K)
        Their joint covariance. Contrasts with control share its units, and so their covariance is not zero.
    n : tuple of int
        Units of each arm.
    clusters : int
        Clusters (units, where there are none).
    """

    arms: tuple[str, ...]
    means: FloatArray
    covariance: FloatArray
    n: tuple[int, ...]
    clusters: int
    joint: ArmMeans

    def contrast(self, treatment: Any, baseline: Any = None, *, level: float = 0.95) -> dict[str, float]:
        """Estimate, se, interval, p-value and degrees of freedom of one arm against another, by default control.

        Raises
        ------
        ParameterError
            If a name is no arm.
        """
        a, b = self._code(treatment), 0 if baseline is None else self._code(baseline)
        estimate, se, df = self.joint.contrast(a, b)
        lower, upper = (float(v) for v in t_interval(estimate, se, df, level))
        p_value = float(t_p_value(estimate, se, df)) if a != b else 1.0
        return {"estimate": estimate, "se": se, "lower": lower, "upper": upper, "p_value": p_value, "df": df}

    def _code(self, name: Any) -> int:
        if arm_label(name) not in self.arms:
            raise ParameterError(f"no arm {name!r}", expected=f"one of {list_names(map(shown, self.arms), 8)}")
        return self.arms.index(arm_label(name))

    def wald(self) -> tuple[float, int, float, float]:
        """Test that all arms have one mean outcome: F statistic, its two degrees of freedom, and the p-value.

        The second degrees of freedom are the fewest of the contrasts with control.
        """
        from scipy.stats import f

        q = len(self.arms) - 1
        contrasts = np.column_stack([-np.ones(q), np.eye(q)])
        value = contrasts @ self.means
        cov = contrasts @ self.covariance @ contrasts.T
        statistic = float(value @ np.linalg.pinv(cov, hermitian=True) @ value) / q
        df = min(self.joint.contrast(k, 0)[2] for k in range(1, q + 1))
        return statistic, q, df, float(f.sf(statistic, q, df))

    def to_dataframe(self, level: float = 0.95) -> pd.DataFrame:
        """Rows of contrasts: every arm against control, then against each other."""
        k = range(len(self.arms))
        pairs = [(a, 0) for a in k if a] + [(b, a) for a, b in combinations(k, 2) if a]
        rows = [self.contrast(self.arms[a], self.arms[b], level=level) for a, b in pairs]
        index = pd.MultiIndex.from_tuples(
            [(self.arms[a], self.arms[b]) for a, b in pairs], names=["treatment", "baseline"]
        )
        return pd.DataFrame(rows, index=index)

    def _notes(self) -> list[str]:
        statistic, q, df, p = self.wald()
        return [
            f"{list_names((f'{name} {n:,}' for name, n in zip(self.arms, self.n, strict=True)), 8)} units; "
            f"test that all arms are alike: F({q}, {df:.0f}) = {statistic:.2f}, {p_words(p)}."
        ]


def code_arms(values: Any, control: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes 0 .. K - 1 of labels, control 0, and the names by code.

    Raises
    ------
    TreatmentError
        If labels are missing, the control is none of them, or they are doses.

    Examples
    --------
    >>> code_arms(["cash", "none", "goats", "cash"], "none")
    (array([1, 0, 2, 1]), ('none', 'cash', 'goats'))
    """
    column = pd.Series(inputs.as_labels(values), name="treatment")
    if column.isna().any():
        raise TreatmentError(f"{int(column.isna().sum())} units without an arm", expected="the arm of each unit")
    kinds = list(pd.unique(column))
    if not any(kind == control or arm_label(kind) == arm_label(control) for kind in kinds):
        raise TreatmentError(
            f"control={control!r} is no arm", expected=f"one of {list_names(map(shown, kinds), 8)}", todo="name it"
        )
    own = next(kind for kind in kinds if kind == control or arm_label(kind) == arm_label(control))
    if len(kinds) == 2:
        other = next((kind for kind in kinds if kind != own), own)
        names = {0: arm_label(own), 1: arm_label(other)}
    else:
        names = declared_arms(column, None, own)
    if not names:
        raise TreatmentError(
            f"{len(kinds)} values, which are doses or one arm", expected="two to eight arms", todo="check the column"
        )
    code = {name: k for k, name in names.items()}
    text = column.map(lambda kind: arm_label(kind))
    return np.asarray(text.map(code), dtype=np.int64), tuple(names[k] for k in sorted(names))


def compare_arms(
    scores: FloatArray, code: Any, names: Sequence[str], weight: Any, strata: Any, clusters: Any, *, fixed: bool
) -> ArmComparison:
    """The comparison of arms from their scores (n, K)."""
    cell, cluster = cells_of_arms(code, strata, clusters)
    if not fixed:
        cell = np.zeros(len(code), dtype=np.int64)
    joint = arm_means(scores, weight, cell, cluster)
    counts = tuple(int(v) for v in np.bincount(code, minlength=len(names)))
    n_clusters = len(code) if clusters is None else int(clusters.max()) + 1
    return ArmComparison(tuple(names), joint.mean, joint.cov, counts, n_clusters, joint)
