"""TransTEE: one transformer for every kind of treatment, on tables, images or both, with posterior draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from causalsat.base import Summary
from causalsat.core import inputs
from causalsat.core.inputs import FitData, FloatArray
from causalsat.estimators.transtee import checks as transtee_checks
from causalsat.estimators.transtee.images import TableOrImages
from causalsat.inference.chains import seed_of
from causalsat.posterior import EffectPosterior

if TYPE_CHECKING:
    from causalsat.estimators.transtee.explain import Attention

__all__ = ["TransTEE"]


class TransTEE(TableOrImages):
    r"""Transformer treatment effects: covariates as tokens, the treatment as a query, Bayesian linear heads.

    Every covariate of a unit is a token, and so is every cell of its image's feature map; the treatment is a query
    that reads the tokens by attention (Zhang et al. 2022). The features that come out, with the covariates and curves
    of the treatment themselves, enter a Bayesian linear regression, whose coefficients are integrated out when the
    network is trained. An ensemble of such networks, each trained without a fold of the villages, gives the draws.
    Treatments may be binary, several levels, a dose, levels with a dosage each, or structured (graphs, texts).

    Parameters
    ----------
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
        Weight units by the inverse of the (generalised) propensity of their treatment.
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
    history_ : list of tuple of float
        Training loss and held-out mean squared error (of the standardised outcome) of each epoch.
    held_out_r2_ : float
        Share of the outcome's variance that members explain in units they did not see.

    Notes
    -----
    The draws hold the posterior of the coefficients given each member's features, with the noise of held-out units,
    and the differences between the members, each of which has not seen a fifth of the villages: the truth is taken to
    lie among M members as one more would, with variance (1 + 1/M) times theirs. The noise of single units is no part
    of a potential outcome's draws. A place's draws do not depend on which other places are asked for, nor on the
    order of the rows in the fit. Beyond the doses of the fit a unit's curve goes on as a straight line.

    For a few hundred units, a table and one dose, :class:`GaussianProcessEffect` was the more accurate in the
    benchmarks. Images, many or structured treatments, dosages and many units are for TransTEE.

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

    def __init__(
        self,
        *,
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
        transtee_checks.check_parameters(self)

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
        from causalsat.estimators.transtee import fit as transtee_fit

        transtee_checks.check_units(self, data, self._dosage, self._table)
        transtee_fit.fit_estimator(self, data, self._dosage, self._table, seed_of(self.random_state))

    def effect(  # type: ignore[override]
        self,
        X: Any,
        *,
        treatment: ArrayLike = 1.0,
        baseline: ArrayLike = 0.0,
        dosage: ArrayLike | None = None,
        baseline_dosage: ArrayLike | None = None,
        treatments: ArrayLike | None = None,
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

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n).
        """
        design, index = self._check_predict(X)
        n = len(index)
        pairs = [(treatment, dosage, "treatment"), (baseline, baseline_dosage, "baseline")]
        levels = [transtee_checks.check_levels(self, value, dose, n, name, treatments) for value, dose, name in pairs]
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
        level = transtee_checks.check_levels(self, treatment, dosage, len(index), "treatment", treatments)
        return EffectPosterior(
            self._draws(design, level, table=treatments),
            index=index,
            kind="outcome",
            treatment=treatment,
            baseline=None,
            diagnostics=self._diagnostics(),
        )

    def _draws(self, design: FloatArray, level: Any, baseline: Any = None, table: Any = None) -> FloatArray:
        from causalsat.estimators.transtee import fit as transtee_fit

        return transtee_fit.outcome_draws(self, design, level, baseline, table)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._draws(X, (treatment, None), (baseline, None))

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
        transtee_checks.check_scorable(self)
        return super().score(X, y, **roles)

    def attention(
        self, X: Any, *, treatment: ArrayLike = 1.0, dosage: ArrayLike | None = None, treatments: Any = None
    ) -> Attention:
        """Weights, of sum 1 for a unit, with which the treatment's query reads each covariate and cell of the image.

        They are averages over heads and members, and say where the network looks, not how the effect changes.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray
            Units, as in :meth:`fit`.
        treatment, dosage, treatments
            As in :meth:`predict_outcome`.

        Returns
        -------
        Attention
            ``covariates`` (n, p) with ``names``, ``cells`` (n, time, y, x) or None.
        """
        from causalsat.estimators.transtee import explain as transtee_explain

        design, index = self._check_predict(X)
        level = transtee_checks.check_levels(self, treatment, dosage, len(index), "treatment", treatments)
        return transtee_explain.attention(self, design, level, index, treatments)

    def _diagnostics(self) -> dict[str, Any]:
        return {
            "draws": f"{self.shape_.n_members} networks with Bayesian linear heads",
            "held-out R2": self.held_out_r2_,
            "epochs (best of)": f"{self.best_epoch_} of {len(self.history_)}",
            "noise sd": self.noise_,
            "village sd": self.village_,
        }

    def _summary(self) -> Summary:
        from causalsat.estimators.transtee import explain as transtee_explain

        return transtee_explain.summary(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave what can be made again out of pickles and copies."""
        return {**super().__getstate__(), "treatment_module": self.treatment_module}
