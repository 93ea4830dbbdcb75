"""What TransTEE's treatment query looks at, and the table of its summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.estimators.transtee.data import NetworkShape
from causalsat.posterior import draw_quantiles

__all__ = ["Attention", "agreement", "average_table", "notes", "split_attention"]

NOTES = {
    "gaussian": "Noise is that of units which a network did not see; what the features miss is in it.",
    "bernoulli": "Effects are differences of probabilities; villages are on the logit.",
    "negative_binomial": "Effects are differences of mean counts; villages are on the logarithm, and the noise is "
    "the dispersion d: the variance of a count of mean m is m + d^2 m^2.",
}


@dataclass(frozen=True, eq=False)
class Attention:
    """Weights with which the treatment's query reads a unit's tokens; they sum to 1 over covariates and cells.

    Networks that predict alike may read different tokens. Where they disagree, the weights explain nothing: what a
    seed chose is no finding. Heterogeneity is in the effects themselves.

    Attributes
    ----------
    covariates : ndarray of shape (n, p)
        Weight of each covariate, the mean over the networks of the ensemble.
    names : tuple of str
        Names of the covariates.
    cells : ndarray of shape (n, time, y, x) or None
        Weight of each cell of the image's feature map, the mean over the networks.
    index : ndarray of shape (n,)
        Labels of the units.
    covariates_sd, cells_sd : ndarray of the same shapes, or None
        Standard deviation of the weights over the networks; NaN of a single one.
    agreement : float
        Mean correlation of two networks' weights over units and tokens: 1 where all read the same; NaN of a single
        network.
    """

    covariates: FloatArray
    names: tuple[str, ...]
    cells: FloatArray | None
    index: NDArray[Any]
    covariates_sd: FloatArray | None = None
    cells_sd: FloatArray | None = None
    agreement: float = float("nan")

    def to_dataframe(self) -> Any:
        """Table with a row a unit and a column a covariate; with images also their total, ``image``."""
        import pandas as pd

        table = pd.DataFrame(self.covariates, columns=list(self.names), index=pd.Index(self.index, name="unit"))
        return table if self.cells is None else table.assign(image=self.cells.sum(axis=(1, 2, 3)))


def split_attention(weights: FloatArray, shape: NetworkShape, names: tuple[str, ...], index: Any) -> Attention:
    """Attention to covariates and cells: mean, spread and agreement of the members' weights (M, n, tokens)."""
    mean, p = weights.mean(axis=0), shape.n_columns
    sd = weights.std(axis=0, ddof=1) if len(weights) > 1 else np.full_like(mean, np.nan)
    cells = cells_sd = None
    if shape.image is not None:
        cells, cells_sd = (v[:, p:].reshape(len(mean), *shape.image.cells) for v in (mean, sd))
    return Attention(mean[:, :p], names, cells, np.asarray(index), sd[:, :p], cells_sd, agreement(weights))


def agreement(weights: FloatArray) -> float:
    """Mean correlation of two members' weights (M, n, tokens) over units and tokens; NaN of one member.

    Examples
    --------
    >>> one = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    >>> round(agreement(np.array([one, one])), 3), round(agreement(np.array([one, one[:, [0, 2, 1]]])), 3)
    (1.0, 0.85)
    """
    rows = weights.reshape(len(weights), -1)
    if len(rows) < 2 or (np.ptp(rows, axis=1) < 1e-12).any():
        return float("nan")
    pairs = np.atleast_2d(np.corrcoef(rows))[np.triu_indices(len(rows), k=1)]
    return float(pairs.mean())


def average_table(draws: FloatArray, name: str) -> Any:
    """Table of one row, ``name``, from draws (S,) of an average contrast."""
    import pandas as pd

    row = {
        "mean": draws.mean(),
        "sd": draws.std(ddof=1),
        "5 %": float(draw_quantiles(draws, 0.05)),
        "95 %": float(draw_quantiles(draws, 0.95)),
        "P(> 0)": float((draws > 0).mean()),
    }
    return pd.DataFrame([row], index=[name])


def notes(family: str) -> tuple[str, ...]:
    """Notes under the summary."""
    return NOTES[family], "Draws mix the networks' Bayesian linear heads."
