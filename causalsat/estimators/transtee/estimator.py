"""TransTEE: one transformer for every kind of treatment, on tables, images or both, with posterior draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.base import INSTEAD_OF_EFFECT, EffectEstimator, OutcomeEstimator, Summary
from causalsat.core import features as support
from causalsat.core import inputs, memory
from causalsat.core.inputs import FitData, FloatArray, check_flags, check_whole_numbers
from causalsat.estimators.image_base import ImageEffectEstimator, ImageFitData, check_image_parameters
from causalsat.estimators.transtee.draws import Ensemble, Predictor, outcome_draws, rebuild, unit_features
from causalsat.estimators.transtee.families import FAMILIES
from causalsat.estimators.transtee.fit import Options, fit_ensemble
from causalsat.estimators.transtee.network import CellTokens, member_modules
from causalsat.estimators.transtee.report import Attention, average_table, notes, split_attention
from causalsat.estimators.transtee.treatments import KINDS
from causalsat.exceptions import DataError, ParameterError, TreatmentError
from causalsat.inference.chains import seed_of
from causalsat.inference.place_effects import check_scope
from causalsat.posterior import EffectPosterior

__all__ = ["TransTEE"]

Level = tuple[FloatArray, FloatArray | None]

CHOICES = {
    "family": FAMILIES,
    "treatment_kind": KINDS,
    "norm": ("pre", "post", "none"),
    "regularizer": (None, "tr", "ptr"),
    "backbone": (None, "cnn"),
    "precision": ("auto", "float32", "bfloat16"),
}
MINIMA = {"image_px": 8, "n_members": 1, "width": 2, "n_heads": 1, "n_blocks": 0, "n_features": 1}
MINIMA |= {"max_epochs": 1, "patience": 1, "batch_size": 0, "n_draws": 2}
FLAGS = ("column_embedding", "propensity_weights", "compile_network", "progress")
MIN_UNITS = 8


class TransTEE(ImageEffectEstimator, OutcomeEstimator):
    r"""Transformer treatment effects: covariates as tokens, the treatment as a query, Bayesian linear heads.

    Every covariate of a unit is a token, and so is every cell of its image's feature map; the treatment is a query
    that reads the tokens by attention (Zhang et al. 2022). The features that come out, with the covariates and curves
    of the treatment themselves, enter a Bayesian linear regression, whose coefficients are integrated out when the
    network is trained. An ensemble of such networks, each trained without a fold of the villages, gives the draws.
    Treatments may be binary, several levels, a dose, levels with a dosage each, or structured (graphs, texts).

    Parameters
    ----------
    family : {"auto", "gaussian", "bernoulli", "negative_binomial"}, default "auto"
        Of the outcome. "auto": bernoulli where it is 0 and 1, else gaussian. "bernoulli": the heads give the logit of
        the probability of 1, "negative_binomial": the logarithm of the mean of a count; outcomes are then
        probabilities or means, and effects their differences.
    treatment_kind : {"auto", "dose", "levels"}, default "auto"
        What the numbers of a treatment mean: codes of levels, or a dose. "auto": binary where they are 0 and 1, else
        a dose. A ``dosage`` or a table of ``treatments`` in :meth:`fit` makes them levels.
    treatment_module : torch.nn.Module, optional
        Embeds structured treatments: called with rows of the table (k, ...), returns (k, d). Each member trains a
        copy of its own and standardises what it returns; embeddings of at most 16 columns also enter multiplied
        with each covariate. It is not saved with the model: set it again after loading.
    backbone : {None, "cnn"}, default None
        None: X is a table, also of frozen features by an encoder before TransTEE in a Pipeline. "cnn": X is chips, or
        places on ``imagery``; a small convolutional network, trained with the rest, makes the cells' tokens.
    imagery, size_m : optional
        What :func:`causalsat.open_imagery` returns, read at the geometry of X, and the side of a chip in metres.
    covariates : sequence of str
        With images, columns of X (or unit coordinates of chips) that are tokens beside the cells.
    image_px, min_valid : int and float, default 32 and 0.5
        Side to which larger chips are averaged down; share of valid pixels below which a unit's image is refused.
    n_members : int, default 5
        Networks in the ensemble.
    width, n_heads, n_blocks, n_features : int, default 16, 2, 0, 16
        Width of a token, heads of an attention, self-attention blocks over the tokens before the treatment reads
        them (on small tables they cost time and gain nothing), and features that a network gives to its head.
    column_embedding : bool, default True
        Whether each covariate has a map to tokens of its own; the original shares one.
    norm : {"pre", "post", "none"}, default "pre"
        Layer normalisation before a layer, after its residual sum (as in the original), or none.
    regularizer, alpha : {None, "tr", "ptr"} and float, default None and 0.5
        Adversary that predicts the treatment (TR), or its mean and variance (PTR), from the mean token; its weight.
    propensity_weights : bool, default False
        Weight units by the inverse of the (generalised) propensity of their treatment. A known probability that
        differs between units weights them by itself, once.
    max_epochs, patience : int, default 32, 10
        Most epochs, and epochs without a better prediction of held-out units until training stops.
    batch_size : int, default 0
        Units in a step; 0: a fifth of the units, between 32 and 1,024.
    learning_rate, n_draws : float and int, default 0.03 and 400
        Largest rate of the one-cycle schedule of AdamW; posterior draws over all members.
    device, random_state, progress
        "auto" (GPU if there is one), "cpu" or "cuda"; seed; whether to show a progress bar.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Of the network's products in training. "auto": bfloat16 for images on a GPU, else float32.
    compile_network : bool, default False
        Compile the network for training (torch.compile): a minute once, for tables that are fitted again and again.

    Attributes
    ----------
    coding_ : TreatmentCoding
        Kind, levels and range of the treatment.
    noise_, village_ : float
        Standard deviations of held-out noise (with what the features miss) and of villages, in the outcome's unit.
        Where the outcome is not normal, villages are on the predictor, and the noise is the dispersion of counts.
    family_ : str
        Family of the outcome.
    history_ : list of tuple of float
        Training loss and held-out mean squared error (of the standardised outcome; minus the mean log likelihood of
        one that is not normal) of each epoch.
    held_out_r2_ : float
        Share of the outcome's variance that members explain in units they did not see.

    Notes
    -----
    The draws have the posterior of the coefficients given each member's features, with the noise of held-out units,
    and the differences between the members, each of which has not seen a fifth of the villages: the truth is taken to
    lie among M members as one more would, with variance (1 + 1/M) times theirs. The noise of single units is no part
    of a potential outcome's draws. A place's draws do not depend on which other places are asked for, nor on the
    order of the rows in the fit.

    Beyond the doses of the fit a unit's curve goes on as a straight line, with a warning, and its interval grows with
    the square of the distance: a draw bends the line with a second derivative of the size that the curve has within
    the doses, or that undoes its slope over their range. A curve that levels off just there is covered less often.

    For a few hundred units, a table and one dose, :class:`GaussianProcessEffect` is the more accurate
    (``benchmarks/RESULTS.md``). Images, many or structured treatments, dosages and many units are for TransTEE.

    References
    ----------
    Zhang, Y.-F., Zhang, H., Lipton, Z. C., Li, L. E. and Xing, E. P. (2022). Exploring Transformer Backbones for
    Heterogeneous Treatment Effect Estimation. arXiv 2202.01336.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, dose = rng.standard_normal((300, 2)), rng.uniform(0, 1, 300)
    >>> y = X[:, 0] + np.sin(3 * dose) + 0.2 * rng.standard_normal(300)
    >>> est = TransTEE(n_members=2, max_epochs=8, random_state=0).fit(X, y, treatment=dose)
    >>> gain = est.effect(X, treatment=0.5, baseline=0.0).ate()
    >>> bool(abs(float(gain) - np.sin(1.5)) < 0.15)
    True
    """

    _binary_treatment = False
    _contract_data: ClassVar[str] = "table"
    _effect_needs_covariates: ClassVar[bool] = True
    _transient: ClassVar[tuple[str, ...]] = ("_recent", "_training", "_network", "treatment_module")
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "n_members": 2,
        "width": 8,
        "n_features": 8,
        "max_epochs": 6,
        "batch_size": 80,
        "n_draws": 100,
        "random_state": 0,
    }
    treatment_module: Any = None  # for a loaded model
    family: str = "gaussian"  # for a model of before there were others
    family_: str = "gaussian"

    def __init__(
        self,
        *,
        family: str = "auto",
        treatment_kind: str = "auto",
        treatment_module: Any = None,
        backbone: str | None = None,
        imagery: Any = None,
        size_m: float | None = None,
        covariates: Sequence[str] = (),
        image_px: int = 32,
        min_valid: float = 0.5,
        n_members: int = 5,
        width: int = 16,
        n_heads: int = 2,
        n_blocks: int = 0,
        n_features: int = 16,
        column_embedding: bool = True,
        norm: str = "pre",
        regularizer: str | None = None,
        alpha: float = 0.5,
        propensity_weights: bool = False,
        max_epochs: int = 32,
        patience: int = 10,
        batch_size: int = 0,
        learning_rate: float = 0.03,
        n_draws: int = 400,
        device: str = "auto",
        precision: str = "auto",
        compile_network: bool = False,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.family = family
        self.treatment_kind = treatment_kind
        self.treatment_module = treatment_module
        self.backbone = backbone
        self.imagery = imagery
        self.size_m = size_m
        self.covariates = covariates
        self.image_px = image_px
        self.min_valid = min_valid
        self.n_members = n_members
        self.width = width
        self.n_heads = n_heads
        self.n_blocks = n_blocks
        self.n_features = n_features
        self.column_embedding = column_embedding
        self.norm = norm
        self.regularizer = regularizer
        self.alpha = alpha
        self.propensity_weights = propensity_weights
        self.max_epochs = max_epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.n_draws = n_draws
        self.device = device
        self.precision = precision
        self.compile_network = compile_network
        self.random_state = random_state
        self.progress = progress

    def _check_parameters(self) -> None:
        check_image_parameters(self.imagery, self.size_m, self.covariates, self.min_valid)
        check_whole_numbers(self, MINIMA)
        check_flags(self, FLAGS)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ParameterError(f"{name}={getattr(self, name)!r}", expected=f"one of {known}")
        for name in ("alpha", "learning_rate"):
            if not getattr(self, name) >= 0:
                raise ParameterError(f"{name}={getattr(self, name)!r}", expected="a number of at least 0")
        if self.width % self.n_heads:
            raise ParameterError(
                f"width={self.width} with n_heads={self.n_heads}", expected="a width that the heads divide"
            )
        if self.backbone is None and (self.imagery is not None or len(self.covariates)):
            raise ParameterError(
                "imagery or covariates without a backbone",
                expected="backbone='cnn' for images; all columns of a table are covariates",
            )

    # ------------------------------------------------------------------ fit
    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        treatment: ArrayLike | str | None = None,
        dosage: ArrayLike | str | None = None,
        treatments: ArrayLike | None = None,
        groups: ArrayLike | str | None = None,
        strata: ArrayLike | str | None = None,
        sample_weight: ArrayLike | str | None = None,
        propensity: ArrayLike | str | float | None = None,
        design: Any = None,
    ) -> TransTEE:
        """Fit the ensemble.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray
            Covariates (n, p); with ``backbone``, chips (n, [time,] band, y, x) or places on ``imagery``.
        y : array of shape (n,)
            Outcome.
        treatment : array of shape (n,) or str
            Level or dose, or the name of X's column that holds it; positions in ``treatments`` where those are given.
        dosage : array of shape (n,) or str, optional
            Dosage of the level.
        treatments : array of shape (K, ...), optional
            Table of structured treatments, which ``treatment_module`` embeds.
        groups : array of shape (n,) or str, optional
            Villages: held out whole, and with an effect of their own.
        strata : array of shape (n,) or str, optional
            Strata within which a binary treatment was randomised.
        sample_weight : array of shape (n,) or str, optional
            Survey weights, rescaled to mean 1.
        propensity : array of shape (n,), float or str, optional
            Known probability of a binary treatment.
        design : Design, optional
            All of these roles in one object.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        DataError, TreatmentError, ColumnError, ParameterError, ImageryError
            If an input cannot be used; the message says what to do.
        """
        values, self.dosage_name_ = inputs.column_or_array(X, dosage, "dosage")
        self._dosage = None if values is None else np.asarray(values, dtype=float)
        self._table = None if treatments is None else np.asarray(treatments)
        if self.dosage_name_ is not None:
            X = X.drop(columns=self.dosage_name_)
        roles: dict[str, Any] = {"groups": groups, "strata": strata, "sample_weight": sample_weight}
        roles |= {"propensity": propensity, "design": design}
        try:
            super().fit(X, y, treatment=treatment, **roles)
        finally:
            del self._dosage, self._table
        return self

    def _fit(self, data: FitData) -> None:
        self._check_units(data)
        seed = seed_of(self.random_state)
        images = image_shape = None
        if isinstance(data, ImageFitData):
            self.encoder_ = CellTokens(self.image_px, self.device)
            images, image_shape = self.encoder_.prepare_training(data.images.chips), self.encoder_.image_shape_
        options = Options(**{field.name: getattr(self, field.name) for field in fields(Options)})
        roles: dict[str, Any] = {"dosage": self._dosage, "table": self._table}
        fitted = fit_ensemble(data, options, seed, images=images, image_shape=image_shape, **roles)
        for field in fields(fitted):
            setattr(self, f"{field.name}_", getattr(fitted, field.name))
        self._network: Any = None
        if isinstance(data, ImageFitData):
            self.encoder_.set_state(self.shape_, self.state_)
        self._average_effect(data)

    def _check_units(self, data: FitData) -> None:
        """Refuse too few units, a dosage that does not fit, and a table of treatments without a module."""
        if len(data.y) < MIN_UNITS:
            raise DataError(f"{len(data.y)} units", expected=f"at least {MIN_UNITS}", todo="collect more units")
        if (self._table is None) != (self.treatment_module is None):
            raise ParameterError(
                "treatments without treatment_module, or the module without the table", expected="both, or neither"
            )
        dosage = self._dosage
        if dosage is not None and (dosage.shape != data.y.shape or not np.isfinite(dosage).all()):
            raise DataError(f"a dosage of shape {dosage.shape}", expected="one finite number for each unit")

    def _average_effect(self, data: FitData) -> None:
        """Draws of the average contrast over the training units: 1 against 0, or upper against lower quartile."""
        coding, n = self.coding_, len(data.y)
        self.contrast_ = (0.0, 1.0)
        if coding.kind == "dose":
            low, high = np.quantile(data.treatment, [0.25, 0.75])
            self.contrast_ = (float(low), float(high))
        elif coding.levels:
            self.contrast_ = (coding.levels[0], coding.levels[1])
        self.n_image_features_, design = 0, data.X
        if isinstance(data, ImageFitData):
            cells = self._encode_images(data.images)
            self.n_image_features_ = cells.shape[1]
            design = np.hstack([cells[data.images.unit_image], data.X])
        dose = np.full(n, coding.mean) if coding.kind == "dosage" else None
        low_level, high_level = ((np.full(n, v), dose) for v in self.contrast_)
        self.ate_draws_ = self._draws(design, high_level, low_level) @ (data.sample_weight / data.sample_weight.sum())

    def _learn_support(self, data: FitData) -> None:
        """Keep mean tokens of the images and covariates, or the table."""
        design = data.X
        if isinstance(data, ImageFitData):
            features = self._encode_images(data.images)
            self.n_images_ = len(data.images)
            self.design_names_ = (*(f"img{j}" for j in range(features.shape[1])), *self.covariate_names_)
            design = np.hstack([features[data.images.unit_image], data.X])
        self.support_reference_ = support.learn_support(self._support_features(design))
        self._training = None

    def _takes_doses(self) -> bool:
        return self.treatment_kind != "levels" and self._dosage is None and self._table is None

    # ------------------------------------------------------------------ a table, or images
    def _check_fit(self, X: Any, y: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any) -> Any:
        base = EffectEstimator if self.backbone is None else ImageEffectEstimator
        data: FitData = base._check_fit(self, X, y, treatment, groups, sample_weight, propensity)
        return data

    def _check_predict(self, X: Any, *, effect_only: bool = False) -> tuple[FloatArray, NDArray[Any]]:
        base = EffectEstimator if self.backbone is None else ImageEffectEstimator
        return base._check_predict(self, X, effect_only=False)

    def _support_features(self, design: FloatArray) -> FloatArray:
        if not self.n_image_features_:
            return design
        k = self.n_image_features_
        return np.hstack([self.encoder_.pooled(design[:, :k]), design[:, k:]])

    # ------------------------------------------------------------------ effects and outcomes
    def effect(  # type: ignore[override]
        self,
        X: Any,
        *,
        treatment: ArrayLike = 1.0,
        baseline: ArrayLike = 0.0,
        dosage: ArrayLike | None = None,
        baseline_dosage: ArrayLike | None = None,
        treatments: ArrayLike | None = None,
        scope: str = "mean",
    ) -> EffectPosterior:
        """Posterior of the conditional effect of ``treatment`` against ``baseline``.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray
            Units, as in :meth:`fit`.
        treatment, baseline : float or array of shape (n,)
            The levels, doses or positions in ``treatments`` to contrast.
        dosage, baseline_dosage : float or array of shape (n,), optional
            Their dosages, where the fit had dosages.
        treatments : array of shape (K, ...), optional
            Another table of structured treatments than that of the fit.
        scope : {"mean"}
            The mean effect of places that look alike; this model does not learn the place's own.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n).
        """
        check_scope(scope)
        if scope == "place":
            self._deviation()
        design, index = self._check_predict(X)
        n = len(index)
        pairs = [(treatment, dosage, "treatment"), (baseline, baseline_dosage, "baseline")]
        levels = [self._check_levels(value, dose, n, name, treatments) for value, dose, name in pairs]
        few = [(level[:2], None if dose is None else dose[:2]) for level, dose in levels]
        memory.announce(n, lambda: self._draws(design[:2], few[0], few[1], treatments), INSTEAD_OF_EFFECT)
        draws = self._draws(design, levels[0], levels[1], treatments)
        return EffectPosterior(
            draws, index=index, treatment=treatment, baseline=baseline, diagnostics=self._diagnostics()
        )

    def predict_outcome(  # type: ignore[override]
        self, X: Any, *, treatment: ArrayLike = 1.0, dosage: ArrayLike | None = None, treatments: Any = None
    ) -> EffectPosterior:
        """Posterior of the mean potential outcome under a treatment, at a village of which nothing is known.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray
            Units, as in :meth:`fit`.
        treatment : float or array of shape (n,)
            Level, dose, or position in ``treatments``; evaluate it at several for a dose-response curve.
        dosage, treatments
            As in :meth:`effect`.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``. The noise of a single unit and of a single village is no
            part of it.

        Raises
        ------
        ParameterError
            If a level was not in the fit, or the numbers are not one, or one for each unit.
        """
        design, index = self._check_predict(X)
        level = self._check_levels(treatment, dosage, len(index), "treatment", treatments)
        return EffectPosterior(
            self._draws(design, level, table=treatments),
            index=index,
            kind="outcome",
            treatment=treatment,
            baseline=None,
            diagnostics=self._diagnostics(),
        )

    def _check_levels(self, value: Any, dosage: Any, n: int, name: str, table: Any) -> Level:
        """Level and dosage of each of n units."""
        level = inputs.check_contrast_value(value, n, name)
        if (dosage is None) == (self.coding_.kind == "dosage"):
            given = "no" if dosage is None else "a"
            raise ParameterError(f"{name} with {given} dosage", expected="a dosage exactly where the fit had one")
        if table is not None:
            if self.coding_.kind != "structured":
                raise ParameterError("treatments for a model without structured treatments", expected="no table")
            if not np.isin(level, np.arange(len(np.asarray(table)))).all():
                raise ParameterError(f"{name}={value!r}", expected="positions in the table of treatments")
        elif self.coding_.kind != "dose":
            self.coding_.codes(level, name)
        amount = None if dosage is None else inputs.check_contrast_value(dosage, n, f"{name}'s dosage")
        self.coding_.warn_beyond(level, amount, name)
        return level, amount

    def _predictor(self, table: Any = None) -> Any:
        """The network with what codes its inputs; the network is rebuilt once after a fit or a load."""
        if getattr(self, "_network", None) is None:
            structured = self.coding_.kind == "structured"
            if structured and self.treatment_module is None:
                raise ParameterError(
                    "a model of structured treatments without its treatment_module",
                    expected="the module with which it was fitted; it is not saved with the model",
                    todo="model.set_params(treatment_module=module)",
                )
            module = member_modules(self.treatment_module, self.shape_.n_members, 0) if structured else None
            self._network = rebuild(self.shape_, self.state_, module, self.device)
        n_cells = 0 if self.shape_.image is None else self.n_image_features_
        chosen = self.treatments_ if table is None else np.asarray(table, dtype=np.float32)
        return Predictor(self._network, self.coding_, self.scaling_, n_cells, chosen)

    def _draws(
        self, design: FloatArray, level: Level, baseline: Level | None = None, table: Any = None
    ) -> FloatArray:
        village = 0.0 if self.family_ == "gaussian" else self.village_
        ensemble = Ensemble(self.coefficients_, self.deviations_, self.mixing_, self.family_, village)
        return outcome_draws(self._predictor(table), ensemble, design, level, baseline)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._draws(X, (treatment, None), (baseline, None))

    def _trial_design(self) -> FloatArray:
        base = EffectEstimator if self.backbone is None else ImageEffectEstimator
        return base._trial_design(self)

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        """At two of the levels; a graph or text needs its module, which no file holds."""
        kind, n = self.coding_.kind, len(design)
        if kind != "structured" or self.treatment_module is not None:
            low, high = (0.0, 1.0) if kind in ("dose", "structured") else (self.coding_.levels[k] for k in (0, -1))
            dosage = np.ones(n) if kind == "dosage" else None
            yield self._draws(design, (np.full(n, high), dosage), (np.full(n, low), dosage))
            yield self._draws(design, (np.full(n, low), dosage))

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        return self._draws(X, (level, None))

    def score(self, X: Any, y: ArrayLike, **roles: Any) -> float:
        """R-score, for binary treatments and doses: see :meth:`causalsat.base.EffectEstimator.score`.

        Parameters
        ----------
        X, y, **roles
            Units, outcome, ``treatment``, ``groups``, ``sample_weight``, ``propensity``, as in :meth:`fit`.

        Raises
        ------
        TreatmentError
            If no treatment is known, or the fitted treatment has levels, dosages or a structure.
        """
        check_is_fitted(self)
        if self.coding_.kind not in ("binary", "dose"):
            raise TreatmentError(
                f"a score of a treatment of the kind {self.coding_.kind!r}",
                expected="a binary treatment or a dose",
                todo="compare predict_outcome with held-out outcomes",
            )
        return super().score(X, y, **roles)

    def attention(
        self, X: Any, *, treatment: ArrayLike = 1.0, dosage: ArrayLike | None = None, treatments: Any = None
    ) -> Attention:
        """Weights, of sum 1 for a unit, with which the treatment's query reads each covariate and cell of the image.

        They are averages over heads and over the networks of the ensemble, with the spread over the networks and
        how far they agree. They say where networks look, not how the effect changes; where ``agreement`` is low, as
        it often is, they explain nothing.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray
            Units, as in :meth:`fit`.
        treatment, dosage, treatments
            As in :meth:`predict_outcome`.

        Returns
        -------
        Attention
            ``covariates`` (n, p) with ``names``, ``cells`` (n, time, y, x) or None, their spread over the networks
            ``covariates_sd`` and ``cells_sd``, and ``agreement``.
        """
        design, index = self._check_predict(X)
        level = self._check_levels(treatment, dosage, len(index), "treatment", treatments)
        weights = unit_features(self._predictor(treatments), design, level, method="attention")
        names = self.design_names_ if self.shape_.image is None else self.covariate_names_
        return split_attention(weights, self.shape_, tuple(names), index)

    def _diagnostics(self) -> dict[str, Any]:
        return {
            "draws": f"{self.shape_.n_members} networks with Bayesian linear heads",
            "held-out R2": self.held_out_r2_,
            "epochs (best of)": f"{self.best_epoch_} of {len(self.history_)}",
            "noise sd": self.noise_,
            "village sd": self.village_,
        }

    def _summary(self) -> Summary:
        low, high = self.contrast_
        name = "ATE" if self.coding_.kind == "binary" else f"ATE, {high:.4g} against {low:.4g}"
        counts = {
            "units": self.n_units_,
            "clusters": self.n_groups_,
            "treatment": self.coding_.kind,
            "family": self.family_,
        }
        table = average_table(self.ate_draws_, name)
        return Summary("TransTEE", table, {**counts, **self._diagnostics()}, notes(self.family_))

    def __getstate__(self) -> dict[str, Any]:
        """Leave what can be made again out of pickles and copies."""
        return {**super().__getstate__(), "treatment_module": self.treatment_module}
