"""What TransTEE's treatment query looks at, and the table of its summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.estimators.transtee.shapes import NetworkShape
from causalsat.posterior import draw_quantiles

__all__ = ["Attention", "average_table", "notes", "split_attention"]

NOTES = {
    "gaussian": "Noise is that of units which a network did not see; what the features miss is in it.",
    "bernoulli": "Effects are differences of probabilities; villages are on the logit.",
    "negative_binomial": "Effects are differences of mean counts; villages are on the logarithm, and the noise is "
    "the dispersion d: the variance of a count of mean m is m + d^2 m^2.",
}


@dataclass(frozen=True, eq=False)
class Attention:
    """Weights with which the treatment's query reads a unit's tokens; they sum to 1 over covariates and cells.

    Attributes
    ----------
    covariates : ndarray of shape (n, p)
        Weight of each covariate.
    names : tuple of str
        Names of the covariates.
    cells : ndarray of shape (n, time, y, x) or None
        Weight of each cell of the image's feature map.
    index : ndarray of shape (n,)
        Labels of the units.
    """

    covariates: FloatArray
    names: tuple[str, ...]
    cells: FloatArray | None
    index: NDArray[Any]

    def to_dataframe(self) -> Any:
        """Table with a row a unit and a column a covariate; with images also their total, ``image``."""
        import pandas as pd

        table = pd.DataFrame(self.covariates, columns=list(self.names), index=pd.Index(self.index, name="unit"))
        return table if self.cells is None else table.assign(image=self.cells.sum(axis=(1, 2, 3)))


def split_attention(weights: FloatArray, shape: NetworkShape, names: tuple[str, ...], index: Any) -> Attention:
    """Attention to covariates and cells from the members' weights (M, n, tokens), of which it is the mean."""
    mean, p = weights.mean(axis=0), shape.n_columns
    cells = None if shape.image is None else mean[:, p:].reshape(len(mean), *shape.image.cells)
    return Attention(mean[:, :p], names, cells, np.asarray(index))


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
