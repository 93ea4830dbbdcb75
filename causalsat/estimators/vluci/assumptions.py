"""Checks of what VLUCI assumes: strengths, other priors, control outcomes, placebo treatments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from causalsat.core import inputs
from causalsat.estimators.vluci import checks as vluci_checks
from causalsat.estimators.vluci.region import LikelihoodRegion

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AssumptionChecks"]


class AssumptionChecks(BaseEstimator):
    """The refits with which a user may doubt an inferred confounder."""

    engine_: Any

    def strength_curve(self, level: float = 0.9) -> pd.DataFrame:
        """Average effect of the latent model at each strength of confounding, and what the likelihood says of it.

        Parameters
        ----------
        level : float
            Of the interval at that strength.

        Returns
        -------
        DataFrame
            One row for each strength: ``link`` (length of b), ``share`` (signed share of the outcome's residual
            variance that L explains), ``ate``, ``lower``, ``upper``, ``evidence`` (log evidence against none).

        Raises
        ------
        ParameterError
            If the model was fitted with networks, which have no such posterior.
        """
        check_is_fitted(self)
        return vluci_checks.strength_curve(self.engine_, level)

    def likelihood_region(self, level: float = 0.9) -> LikelihoodRegion:
        """Average effects at all strengths of confounding that the data bear, with no prior of the strength.

        This region asks the likelihood alone (given the shapes that the class's documentation sets out): every
        strength within its joint confidence region, with the latent model's sampling error there. The interval of
        the posterior covers those strengths too, but has the posterior's mean for its own, which stretches it
        towards no confounding, and it has the base's sampling error.

        Parameters
        ----------
        level : float
            Of the region.

        Returns
        -------
        LikelihoodRegion
            ``estimate`` at the likeliest strength, ``lower``, ``upper``, in the units of the outcome (logits where it
            is binary); ``none``, whether no confounding is among those strengths. For a dose: every strength that the
            prior allows, as the data say nothing.

        Raises
        ------
        ParameterError
            If the model was fitted with networks, or confounding was ruled out beforehand.
        """
        check_is_fitted(self)
        return vluci_checks.region(self, level)

    def sensitivity(
        self,
        X: Any,
        y: ArrayLike,
        *,
        treatment: ArrayLike | str | None = None,
        link_scales: Sequence[float] = (0.5, 1.0, 2.0),
        prior_confounding: Sequence[float] = (0.0, 0.3, 1.0),
        n_latents: Sequence[int] = (),
        level: float = 0.9,
        **roles: Any,
    ) -> pd.DataFrame:
        """Refit under other priors and dimensions of L, and report how the average effect moves.

        Parameters
        ----------
        X, y, treatment
            As in :meth:`fit`; ``roles`` are its other arguments (groups, sample_weight).
        link_scales, prior_confounding : sequence of float
            Values of those parameters, one at a time.
        n_latents : sequence of int
            Dimensions of L, refitted with the variational networks: under a linear link the dimension is immaterial.
        level : float
            Of the intervals.

        Returns
        -------
        DataFrame
            One row for each setting: ``ate``, ``lower``, ``upper``, ``probability`` (of confounding).
            :func:`causalsat.plots.plot_unobserved` draws it. Where L moves the treatment more than all of X
            does, intervals can be too short: read :meth:`likelihood_region` too.
        """
        settings: list[tuple[str, dict[str, Any]]] = [("as fitted", {})]
        settings += [(f"link scale {v:g}", {"link_scale": v}) for v in link_scales]
        settings += [(f"prior of confounding {v:g}", {"prior_confounding": v}) for v in prior_confounding]
        settings += [(f"networks, {v} latent(s)", {"n_latents": v, "inference": "variational"}) for v in n_latents]
        return vluci_checks.refits(self, settings, X, y, {"treatment": treatment, **roles}, level)

    def negative_control(
        self, X: Any, y: ArrayLike, *, treatment: ArrayLike | str | None = None, level: float = 0.9, **roles: Any
    ) -> pd.DataFrame:
        """Refit to an outcome that the treatment cannot have moved; its average effect should be zero.

        Parameters
        ----------
        X, treatment
            As in :meth:`fit`; ``roles`` are its other arguments.
        y : array of shape (n,)
            The control outcome, such as the outcome before treatment.
        level : float
            Of the intervals.

        Returns
        -------
        DataFrame
            Rows "with unobserved confounder" and "X only": ``ate``, ``lower``, ``upper``, ``probability``.
        """
        settings = [
            ("with unobserved confounder", {}),
            ("X only", {"prior_confounding": 0.0, "inference": "marginal"}),
        ]
        return vluci_checks.refits(self, settings, X, y, {"treatment": treatment, **roles}, level)

    def placebo(
        self,
        X: Any,
        y: ArrayLike,
        *,
        treatment: ArrayLike | str | None = None,
        n_repeats: int = 3,
        level: float = 0.9,
        **roles: Any,
    ) -> pd.DataFrame:
        """Refit with treatments dealt out anew at random, as in a trial: no effect, and L must not predict them.

        Parameters
        ----------
        X, y, treatment
            As in :meth:`fit`; ``roles`` are its other arguments.
        n_repeats : int
            Placebo treatments.
        level : float
            Of the intervals.

        Returns
        -------
        DataFrame
            One row for each: ``ate``, ``lower``, ``upper``, ``probability``, ``treatment_r2``.
        """
        values, _ = inputs.column_or_array(X, treatment, "treatment")
        return vluci_checks.placebos(self, X, y, values, roles, int(n_repeats), level)

    def _refit(self, **changes: Any) -> Any:
        """Return an unfitted copy with some parameters changed."""
        return clone(self).set_params(**changes)
