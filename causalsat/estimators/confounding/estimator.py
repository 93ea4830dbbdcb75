"""Observational studies whose images hold the confounder: weighting and doubly robust estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.base import Summary
from causalsat.core.inputs import FloatArray, check_whole_numbers, select_columns, unit_index
from causalsat.estimators.confounding.fit import Options, fit_confounding, take_units
from causalsat.estimators.confounding.nuisances import propensity_learner
from causalsat.estimators.confounding.salience import occlusion
from causalsat.estimators.doubly_robust import AverageEffect, DoublyRobustEffect
from causalsat.estimators.image_base import (
    ImageEffectEstimator,
    ImageFitData,
    check_image_parameters,
    covariate_table,
)
from causalsat.exceptions import ImageryError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["ImageConfounding"]


class ImageConfounding(ImageEffectEstimator, DoublyRobustEffect):
    """Average effect of an observational treatment, adjusted for what images show.

    Where programmes went depends on what the place looks like, and so does the outcome: the image holds the
    confounder. The probability of treatment and the outcome are predicted from image features and covariates,
    cross-fitted over clusters (without any, over images), and give the Hajek inverse-propensity estimate, the doubly
    robust (AIPW) average effect and the effect on the treated (Jerzak, Johansson and Daoud 2023, "Integrating Earth
    observation data into causal inference"; Chernozhukov et al. 2018). :meth:`summary` shows them beside the naive
    difference, with overlap, balance and the sensitivity to a confounder that the image does not show (Cinelli and
    Hazlett 2020).

    Intervals are cluster-robust t intervals of the mean score. Nothing in them knows of confounders that the features
    miss: look at the held-out R2 of the outcome and at the robustness value. An encoder that sees no labels is fitted
    to all images; everything that sees outcomes or treatments is cross-fitted. So is an encoder that is trained on
    them, such as :class:`~causalsat.LearnedFilters` or :class:`~causalsat.SupervisedEncoder`: each fold's nuisance
    functions rest on one that was trained without the fold, on the outcome less its regression on the covariates.

    Parameters
    ----------
    encoder : transformer of chips, optional
        Makes the image features; by default :class:`~causalsat.PyramidFeatures`, which see averages and single
        striking places at several scales and need no labels. Where the outcome is closely tied to one striking thing
        (a held-out R2 above a half or so), compare the held-out R2 of ``LearnedFilters(n_folds=1)``, which finds a
        filter for that thing (``benchmarks/RESULTS.md``).
    imagery, size_m : imagery and float, optional
        What is read at the geometry of a GeoDataFrame, and the side of the chips in metres.
    covariates : sequence of str
        Columns (or unit coordinates of the chips) to adjust for as well.
    outcome_model : scikit-learn estimator, optional
        Learner of the outcome; by default ridge regression on standardised features. It is fitted to each arm alone
        and to both together, and the form that predicts held-out outcomes better is kept.
    propensity_model : {"logistic", "calibrated"} or scikit-learn classifier
        Learner of the treatment; by default ridge-penalised logistic regression, its penalty chosen on held-out
        units. "calibrated": a network, :class:`~causalsat.CalibratedProbability`.
    n_splits : int
        Folds of the cross-fitting.
    modifiers : None, str or list
        What the effect may depend on: names of covariates, ``"latent0"`` ... (principal components of the image
        features), patterns. By default nothing: one average effect.
    n_latents : int
        Principal components of the image features, for balance, sensitivity and ``modifiers``.
    regularisation : {"ridge", None}
        Whether the projection on modifiers is shrunk, as in :class:`~causalsat.DoublyRobustEffect`.
    lack_of_fit : float
        What an effect linear in the modifiers may leave out, as there; nothing without modifiers.
    min_propensity : float
        Propensities are clipped to [min_propensity, 1 - min_propensity], with a warning.
    min_valid : float
        Least share of valid pixels of an image.
    n_draws : int
        Number of posterior draws.
    random_state : int
        Seed of the default encoder, the folds and the draws.

    Attributes
    ----------
    ate_, att_, hajek_, naive_ : AverageEffect
        AIPW average effect and effect on the treated, Hajek estimate, difference in means: estimate, se, lower,
        upper (95 %), df, p_value.
    scores_ : ndarray of shape (n,)
        Doubly robust scores.
    nuisances_ : Nuisances
        Held-out outcome and treatment predictions.
    held_out_ : HeldOut
        How well they predict: outcome R2, log loss of the treatment.
    balance_ : Balance
        Standardised differences of latents and covariates before and after weighting.
    sensitivity_ : Sensitivity
        Of the partially linear estimate, with each covariate and the image as benchmarks.
    encoder_, propensity_model_ : fitted transformer and classifier
        Encoder (of a trained one the mean over the folds', its ``encoders_``); model of the treatment on all units,
        for salience and new places.

    References
    ----------
    Jerzak, Johansson and Daoud (2023); Hajek (1971); Robins, Rotnitzky and Zhao (1994); Chernozhukov et al. (2018);
    Cinelli and Hazlett (2020).

    Examples
    --------
    >>> from causalsat.simulate import colour_confounding
    >>> data = colour_confounding(600, 16)
    >>> est = ImageConfounding(covariates=["x1", "x2"])
    >>> est = est.fit(data.chips(), data.outcome, treatment=data.treatment)
    >>> round(est.naive_.estimate), round(est.ate_.estimate), data.effect
    (4, 2, 2.0)
    """

    _contract_data: ClassVar[str] = "images"
    _contract_effect: ClassVar[str] = "average"
    _takes_design: ClassVar[bool] = True
    _learns_places: ClassVar[bool] = False
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_splits": 2, "n_draws": 200, "n_latents": 3}

    def __init__(
        self,
        encoder: Any = None,
        imagery: Any = None,
        size_m: float | None = None,
        covariates: Sequence[str] = (),
        outcome_model: Any = None,
        propensity_model: Any = "logistic",
        n_splits: int = 5,
        modifiers: Any = None,
        n_latents: int = 10,
        regularisation: str | None = "ridge",
        lack_of_fit: float = 0.2,
        min_propensity: float = 0.01,
        min_valid: float = 0.5,
        n_draws: int = 1000,
        random_state: Any = 0,
    ) -> None:
        self.encoder = encoder
        self.imagery = imagery
        self.size_m = size_m
        self.covariates = covariates
        self.outcome_model = outcome_model
        self.propensity_model = propensity_model
        self.n_splits = n_splits
        self.modifiers = modifiers
        self.n_latents = n_latents
        self.regularisation = regularisation
        self.lack_of_fit = lack_of_fit
        self.min_propensity = min_propensity
        self.min_valid = min_valid
        self.n_draws = n_draws
        self.random_state = random_state

    def _check_parameters(self) -> None:
        DoublyRobustEffect._check_parameters(self)
        check_image_parameters(self.imagery, self.size_m, self.covariates, self.min_valid)
        propensity_learner(self.propensity_model)
        check_whole_numbers(self, {"n_latents": 1})

    # ------------------------------------------------------------------ fit
    def _fit(self, data: ImageFitData) -> None:  # type: ignore[override]
        options = Options(**{field.name: getattr(self, field.name) for field in fields(Options)})
        ordered, order = data.in_content_order()
        fitted = fit_confounding(ordered, options)
        self.encoder_, self.reduction_ = fitted.encoder, fitted.reduction
        self._training = (data.images, fitted.features)
        self.held_out_, self.scores_ = fitted.held_out, fitted.scores
        self.ate_, self.att_, self.hajek_, self.naive_ = fitted.ate, fitted.att, fitted.hajek, fitted.naive
        self.overlap_, self.clipped_share_ = fitted.overlap, fitted.clipped_share
        self.balance_, self.sensitivity_ = fitted.balance, fitted.sensitivity
        self.propensity_model_, self.band_fill_ = fitted.propensity_model, fitted.band_fill
        self.salience_names_, self.salience_values_ = fitted.salience_names, fitted.salience_values
        self.modifier_options_ = fitted.table_names
        self._fit_modifiers(ordered, fitted.table)
        rows = np.argsort(order)
        self.scores_, self.nuisances_ = fitted.scores[rows], take_units(fitted.nuisances, rows)

    def _fit_modifiers(self, data: ImageFitData, table: FloatArray) -> None:
        """Project the scores on the modifiers: columns of latents and covariates, none for one average effect."""
        options = self.modifier_options_
        chosen = np.empty(0, dtype=np.int64) if self.modifiers is None else select_columns(options, self.modifiers)
        self.chosen_modifiers_ = chosen
        self.modifier_names_ = tuple(options[j] for j in chosen)
        self._effect_needs_covariates = bool((chosen >= self.reduction_.n_out).any())  # type: ignore[misc]
        self.modifier_positions_ = np.arange(len(chosen))
        self._project(replace(data, X=table[:, chosen]))

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        d = self.n_image_features_
        table = np.hstack([self.reduction_.apply(X[:, :d]), X[:, d:]])
        return super()._effect_draws(table[:, self.chosen_modifiers_], treatment, baseline)

    def _support_columns(self) -> NDArray[np.int64] | slice:  # type: ignore[override]
        return slice(0, self.n_image_features_)

    # ------------------------------------------------------------------ what else the fit knows
    def estimates(self) -> pd.DataFrame:
        """Naive difference, Hajek IPW, AIPW and AIPW on the treated: estimate, se, 95 % interval, p-value."""
        import pandas as pd

        check_is_fitted(self, "ate_")
        rows: dict[str, AverageEffect] = {
            "naive difference": self.naive_,
            "ATE, Hajek IPW": self.hajek_,
            "ATE, AIPW": self.ate_,
            "ATT, AIPW": self.att_,
        }
        return pd.DataFrame(
            [asdict(estimate) for estimate in rows.values()], index=pd.Index(list(rows), name="method")
        )

    def salience_table(self) -> pd.DataFrame:
        """How the propensity depends on each covariate and on the image.

        Returns
        -------
        DataFrame
            ``per_sd``: mean change of the propensity for one standard deviation more (missing for the image);
            ``spread``: root mean squared change when the covariate (all image features) is put at its mean.
        """
        import pandas as pd

        check_is_fitted(self, "ate_")
        index = pd.Index(self.salience_names_, name="feature")
        return pd.DataFrame(self.salience_values_, index=index, columns=["per_sd", "spread"])

    def predict_propensity(self, X: Any) -> FloatArray:
        """Probability of treatment by the model of all units, shape (n,), clipped like those of the fit.

        Parameters
        ----------
        X : as in :meth:`fit`
            Chips or places, with the covariates.
        """
        check_is_fitted(self, "ate_")
        features, unit_image = self._encode(X)
        table = self.covariate_imputation_.apply(covariate_table(X, self.covariates), tuple(self.covariates))
        chance = self.propensity_model_.predict_proba(np.hstack([features[unit_image], table]))[:, 1]
        return np.clip(chance, self.min_propensity, 1 - self.min_propensity)

    def salience(self, X: Any, *, window_px: int | None = None, stride_px: int | None = None) -> xr.DataArray:
        """Which parts of each image make treatment likelier, by occlusion (captum).

        Each window is replaced by the bands' training means. The change of the log-odds of treatment is positive
        where what stands there makes treatment likelier.

        Parameters
        ----------
        X : as in :meth:`fit`
            Chips or places of the units to explain, with the covariates.
        window_px, stride_px : int, optional
            Side of the window, an eighth of the image's by default, and its step, half a window.

        Returns
        -------
        DataArray of shape (unit, y, x)
        """
        import xarray as xr

        check_is_fitted(self, "ate_")
        shape = self.chip_shape_
        images = self._read_images(X)
        if self.chip_shape_ != shape:
            arrived, self.chip_shape_ = self.chip_shape_, shape
            raise ImageryError(f"chips of shape {arrived}", expected=f"{shape}, as in training")
        window = max(2, min(shape[-2:]) // 8) if window_px is None else window_px
        table = self.covariate_imputation_.apply(covariate_table(X, self.covariates), tuple(self.covariates))
        chips = images.chips[images.unit_image]
        values = occlusion(
            self.encoder_,
            self.propensity_model_,
            np.asarray(chips, dtype=np.float32),
            table,
            window_px=window,
            stride_px=max(1, window // 2) if stride_px is None else stride_px,
            fill=self.band_fill_,
            bands=[str(b) for b in chips["band"].values] if "band" in chips.coords else None,
        )
        return xr.DataArray(values, dims=("unit", "y", "x"), coords={"unit": unit_index(X)}, name="log-odds")

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        raw, weighted = self.balance_.worst
        low, high = self.min_propensity, 1 - self.min_propensity
        diagnostics = {
            **super()._diagnostics(),
            "share of propensities clipped": f"{self.clipped_share_:.1%} (bounds {low:g}, {high:g})",
            "largest standardised difference": f"{raw:.2f}, weighted {weighted:.2f}",
            "outcome R2, held out": self.held_out_.outcome_r2,
            "outcome model": self.held_out_.outcome_form,
            "treatment log loss, held out": f"{self.held_out_.log_loss:.3f} (share alone "
            f"{self.held_out_.log_loss_share:.3f})",
            "partially linear estimate": f"{self.sensitivity_.estimate:.4g} (se {self.sensitivity_.se:.2g})",
            "robustness value": self.sensitivity_.robustness_value(),
            "robustness value at 5 %": self.sensitivity_.robustness_value(alpha=0.05),
        }
        if not self.modifier_names_:
            diagnostics = {k: v for k, v in diagnostics.items() if "heterogeneity" not in k and "prior sd" not in k}
            diagnostics["source"] = "cluster-robust t approximation"
        return diagnostics

    def _summary(self) -> Summary:
        import pandas as pd
        from scipy.stats import t

        table = self.estimates()
        columns = ["estimate", "se", "p_value", "lower", "upper"]
        shown = table[columns].set_axis(["coef", "std err", "P>|t|", "[0.025", "0.975]"], axis=1)
        if self.modifier_names_:
            coef, se = self.coef_[1:], np.sqrt(np.diag(self.coef_cov_)[1:])
            half = t.ppf(0.975, self.df_) * se
            ratio = np.divide(coef, se, out=np.zeros_like(se), where=se > 0)
            modifier_rows = np.column_stack([coef, se, 2 * t.sf(np.abs(ratio), self.df_), coef - half, coef + half])
            shown = pd.concat(
                [shown, pd.DataFrame(modifier_rows, index=list(self.modifier_names_), columns=shown.columns)]
            )
        counts = {
            "units": self.n_units_,
            "images": self.n_images_,
            "clusters": self.n_groups_,
            "treated share": self.treated_share_,
        }
        notes = (
            "Standard errors are clustered and refer to the t distribution; Hajek's takes propensities as known.",
            "The adjustment is for what image features and covariates show, and for nothing else.",
            "Robustness value: share of the residual variance of treatment and of outcome that an omitted confounder",
            "would have to explain to bring the partially linear estimate to zero (or its 95 % interval to it).",
        )
        return Summary("Effect adjusted for images", shown, {**counts, **self._diagnostics()}, notes)
