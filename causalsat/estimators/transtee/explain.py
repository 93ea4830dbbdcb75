"""What TransTEE's treatment query looks at, and the printed summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.base import Summary
from causalsat.core.inputs import FloatArray
from causalsat.estimators.transtee import fit as transtee_fit
from causalsat.posterior import draw_quantiles

if TYPE_CHECKING:
    from causalsat.estimators.transtee.estimator import TransTEE

__all__ = ["Attention", "attention", "summary"]


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


def attention(est: TransTEE, design: FloatArray, level: Any, index: Any, table: Any) -> Attention:
    """Attention of the query to the tokens, averaged over heads and members."""
    weights = transtee_fit.member_features(est, design, level, table, method="attention").mean(axis=0)
    p, image = est.shape_.n_columns, est.shape_.image
    names = est.design_names_ if image is None else est.covariate_names_
    cells = None if image is None else weights[:, p:].reshape(len(weights), *image.cells)
    return Attention(weights[:, :p], tuple(names), cells, np.asarray(index))


def summary(est: TransTEE) -> Summary:
    """Average contrast, noise and fit."""
    import pandas as pd

    draws = est.ate_draws_
    low, high = est.contrast_
    name = "ATE" if est.coding_.kind == "binary" else f"ATE, {high:.4g} against {low:.4g}"
    row = {
        "mean": draws.mean(),
        "sd": draws.std(ddof=1),
        "5 %": float(draw_quantiles(draws, 0.05)),
        "95 %": float(draw_quantiles(draws, 0.95)),
        "P(> 0)": float((draws > 0).mean()),
    }
    counts = {"units": est.n_units_, "clusters": est.n_groups_, "treatment": est.coding_.kind}
    notes = (
        "Noise is that of units which a network did not see; it holds what the features miss.",
        "Draws mix the networks' Bayesian linear heads.",
    )
    return Summary("TransTEE", pd.DataFrame([row], index=[name]), {**counts, **est._diagnostics()}, notes)
