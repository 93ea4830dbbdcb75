"""VLUCI: an unobserved confounder inferred from covariates, treatment and outcome, and handed to any estimator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from causalsat.base import EffectEstimator, Summary, effect, final_estimator
from causalsat.core import inputs
from causalsat.core.inputs import FitData, FloatArray, align_outcome, check_whole_numbers
from causalsat.core.warn import warn
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.estimators.linear.estimator import BayesianLinearEffect
from causalsat.estimators.members import chunks, fit_member, take
from causalsat.estimators.vluci import engine as vluci_engine
from causalsat.estimators.vluci import report as vluci_report
from causalsat.estimators.vluci.network import NetworkSettings
from causalsat.estimators.vluci.posterior import Grid, Prior
from causalsat.estimators.vluci.report import LikelihoodRegion
from causalsat.exceptions import ColumnError, DataWarning, ParameterError, TreatmentError
from causalsat.inference.chains import seed_of
from causalsat.inference.stacking import thin
from causalsat.posterior import EffectPosterior, draw_quantiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["VLUCI"]

CHOICES = {
    "inference": ("marginal", "variational"),
    "outcome": ("auto", "continuous", "binary"),
    "confounder": ("flexible", "normal", "yes/no"),
    "noise": ("flexible", "normal"),
    "device": ("auto", "cpu", "cuda"),
}
MINIMA = {"n_latents": 1, "n_imputations": 1, "n_grid": 3, "n_networks": 1}
MINIMA |= {"hidden": 1, "max_epochs": 1, "warmup": 0, "n_draws": 2}
RANGES = (("prior_confounding", 0.0, 1.0), ("link_scale", 1e-6, 100.0), ("independence", 0.0, 1e6))
YES_NO = {"flexible": 0.3, "normal": 0.0, "yes/no": 1.0}  # prior probability of a yes/no confounder
MIN_UNITS = 20


class VLUCI(FittedLevels):
    r"""Effects under unobserved confounding: draws of a latent confounder L are added to X for any estimator.

    The model is that of VLUCI: L ~ N(0, I), independent of the observed X, moves both treatment and outcome,

    .. math:: T | X, L \sim p(T | f_T(X) + b'L), \qquad Y | X, T, L \sim p(Y | f_Y(X, T) + c_T'L).

    Its posterior gives draws of L for each unit; the base estimator is fitted to (X, L) once for each of
    ``n_imputations`` draws of L and of the model's parameters, and the posteriors are pooled.

    **What this assumes, in plain words.** That somebody was treated for reasons that were not measured cannot be seen
    in data without assumptions, and no method changes that. This one reads it from *shapes*: (1) one confounder,
    normal or yes/no, that is independent of X (a part of L that X predicts does no harm: X stands for it); (2) a
    logit for the treatment, in which L adds to a smooth function of X; (3) noise in the outcome of one law whatever X
    is, skewed or heavy-tailed as it may be (a mixture of two normal ones), the same in both arms or one of each; (4)
    functions of X of which few bent and product terms matter (Student-t priors). Where a normal L chose the treated,
    their outcomes given X are skewed, the controls' the other way, and their mean moves with the propensity along a
    particular curve; a yes/no L leaves two lumps of unequal size in each arm; that is all there is to see. Results
    are averaged over the laws of L and of the noise, by how likely the data make them; :meth:`laws` shows each. A
    skewed L of another law, a missed nonlinearity or another link look like something else. So read
    ``probability_`` and the intervals as statements *given* the shapes, look at :meth:`laws` and
    :meth:`sensitivity`, and use :meth:`negative_control` where you can. **For a dose with normal residuals the data
    say nothing at all**: the posterior of the strength is its prior, the point estimate nearly that of X alone, and
    only the width of the interval is new. Of a yes/no outcome they say little, and L is taken for normal.

    Parameters
    ----------
    base : estimator, optional
        Effect estimator of this package, or Pipeline that ends in one, which is cloned; by default
        :class:`~causalsat.BayesianLinearEffect`.
    encoder : transformer, optional
        Makes features of images: X is then what it takes, chips or places, and its output stands for X. It is cloned,
        fitted to the training X without labels, and frozen. The model is one of few smooth functions: a handful of
        latents (``make_pipeline(RandomConvFeatures(), PCA(6))``, ``ImageEncoder(..., n_components=6)``) serves better
        than hundreds. A confounder that the image shows belongs to X and needs no L.
    inference : {"marginal", "variational"}
        ``"marginal"``: the link of L is linear, so only b'L matters, it is integrated out by quadrature, and the
        posterior of the strength of confounding comes from the exact likelihood (all other parameters by Laplace's
        approximation). ``"variational"``: the paper's networks, q(L | X, T) and q(L | X, T, Y), trained against a
        bound for the treatment and one for the outcome, with a warm-up of the Kullback-Leibler divergences and a
        penalty on dependence between L and X. L may have several dimensions and enter the outcome in any way, but
        there is no posterior of the strength: intervals have only the spread over draws and an ensemble.
    n_latents : int
        Dimension of L in the variational model. Under a linear link one dimension is all that matters.
    outcome : {"auto", "continuous", "binary"}
        "auto": binary where the outcome is 0 or 1 only.
    prior_confounding : float
        Prior probability that there is unobserved confounding at all (marginal). 0 for none, 1 to rule out none.
        Where the data say little, the estimate shrinks towards that of X alone. The intervals do not shrink with it:
        the strengths that the imputations stand for are spread by the likelihood to the power of 0.3, without the
        prior's lump at none, over all of the :meth:`likelihood_region` at 90 %, and weighted so that their mean
        effect is the posterior's.
    link_scale : float
        Prior scale of the length of b as a multiple of the standard deviation of f_T(X): how much more than all of X
        together L moves the treatment. The length takes half, one and two times this (prior weights 0.1, 0.3, 0.6),
        up to 4 (in units of the logit, or of a dose's noise); the share of the outcome's residual variance that L
        explains has a Beta(1, 1/2) prior. Where X does not move the treatment, as in a trial, neither does L: raise
        this if you know better. Of the networks, the prior standard deviation of the coefficients themselves.
    confounder : {"flexible", "normal", "yes/no"}
        Law of L, for a continuous outcome under a binary treatment, in the marginal model: averaged over (prior
        probability of yes/no 0.3, its share learned), or the one that you know.
    noise : {"flexible", "normal"}
        Of a continuous outcome under a binary treatment, in the marginal model: "flexible" learns a shape (of at
        least 100 units), alike in the arms or (prior probability 0.1) of each arm, so that skewness is not taken for
        a confounder; "normal" sees more where that is known.
    n_imputations : int
        Draws of L and of the model, each with a fit of the base.
    n_grid : int
        Strengths, between minus and plus 91 % of the residual variance, at which the likelihood is maximised.
    n_networks : int
        Networks of the variational ensemble.
    hidden, max_epochs, warmup, independence : int, int, int, float
        Of each network: units of a hidden layer, most epochs, epochs of the warm-up, weight of the penalty.
    device : str
        "auto" (a GPU where there is one), "cpu" or "cuda", for the networks.
    n_draws : int
        Draws of the pooled posterior.
    progress : bool
        Show the networks' training.
    random_state : int, RandomState or None
        Seed of L and of the default base; a base that you pass keeps its own.

    Attributes
    ----------
    encoder_ : transformer or None
        The fitted encoder.
    members_ : list of estimator
        The base, fitted to X and each draw of L.
    engine_ : Marginal or Variational
        The fitted latent model.
    latents_ : ndarray of shape (n_imputations, n, d)
        Draws of L of the training units.
    probability_ : float
        Posterior probability of unobserved confounding (marginal; NaN where the data cannot speak of it).
    report_ : LatentReport
        Diagnostics: ``known`` (0 is collapse), ``treatment_r2`` (1 is a leak), ``x_r2`` (should be 0), ``notes``.
    design_effect_ : float
        Where ``groups`` are given, by how much the likelihood is weakened, as units of a cluster repeat each other.

    Notes
    -----
    A known ``propensity`` is a design: nothing unobserved decided the treatment, and no confounder is inferred.
    Image latents come by ``encoder``, or as columns of X (a Pipeline with an encoder, whose last step then has the
    methods about observed units). Fewer than 20 units infer nothing.
    How much of the gap between X alone and the true L it closes, by the number of units, the strength and the
    dimension of L, and how often its intervals cover: ``benchmarks/RESULTS.md``.

    ``effect`` is about new units: it averages over the prior of L. :meth:`counterfactual` is about units whose
    treatment and outcome were seen, and uses the posterior of their own L.

    References
    ----------
    "VLUCI: Variational Learning of Unobserved Confounders for Counterfactual Inference", arXiv 2308.00904 (the two
    bounds; here the second takes the treatment's posterior of L for its prior). Heckman, J. (1979), "Sample selection
    bias as a specification error", Econometrica 47, on what identifies such a model.

    Examples
    --------
    >>> from causalsat import DoublyRobustEffect
    >>> from causalsat.simulate import hidden_confounding
    >>> world = hidden_confounding(1500, strength=2.0, observed=2.0, n_features=5, seed=0)
    >>> base = DoublyRobustEffect(propensity_model="logistic", min_propensity=1e-6)
    >>> model = VLUCI(base, n_imputations=4, n_grid=5, random_state=0)
    >>> data = {"X": world.X, "y": world.outcome, "treatment": world.treatment}
    >>> both = [m.fit(**data).effect(world.X).ate() for m in (model, base)]
    >>> [bool(abs(float(ate) - world.tau.mean()) < 0.6) for ate in both], model.probability_ > 0.9
    ([True, False], True)
    """

    confounder: str = "normal"  # for a model of before there was a choice
    # the worlds of the contract tests are randomised trials: little prior weight on confounding, short everything
    _takes_design: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "base": BayesianLinearEffect(n_draws=60, n_tune=60, n_chains=2, random_state=0),
        "prior_confounding": 0.02,
        "n_imputations": 2,
        "n_grid": 3,
        "n_draws": 200,
    }

    def __init__(
        self,
        base: Any = None,
        *,
        encoder: Any = None,
        inference: str = "marginal",
        n_latents: int = 1,
        outcome: str = "auto",
        prior_confounding: float = 0.3,
        link_scale: float = 1.0,
        confounder: str = "flexible",
        noise: str = "flexible",
        n_imputations: int = 10,
        n_grid: int = 9,
        n_networks: int = 5,
        hidden: int = 32,
        max_epochs: int = 150,
        warmup: int = 20,
        independence: float = 1.0,
        device: str = "auto",
        n_draws: int = 1000,
        progress: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.base = base
        self.encoder = encoder
        self.inference = inference
        self.n_latents = n_latents
        self.outcome = outcome
        self.prior_confounding = prior_confounding
        self.link_scale = link_scale
        self.confounder = confounder
        self.noise = noise
        self.n_imputations = n_imputations
        self.n_grid = n_grid
        self.n_networks = n_networks
        self.hidden = hidden
        self.max_epochs = max_epochs
        self.warmup = warmup
        self.independence = independence
        self.device = device
        self.n_draws = n_draws
        self.progress = progress
        self.random_state = random_state

    def _check_parameters(self) -> None:
        for name, allowed in CHOICES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in allowed:
                expected = " or ".join(repr(value) for value in allowed)
                raise ParameterError(f"{name}={getattr(self, name)!r}", expected=expected)
        check_whole_numbers(self, MINIMA)
        for name, low, high in RANGES:
            value = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise ParameterError(f"{name}={value!r}", expected=f"a number between {low:g} and {high:g}")
        model = None if self.base is None else final_estimator(self.base)[1]
        if isinstance(self.base, type) or not isinstance(model, EffectEstimator | None):
            raise ParameterError(
                f"base={self.base!r}", expected="an effect estimator of causalsat, or a Pipeline that ends in one"
            )

        if self.encoder is not None and (isinstance(self.encoder, type) or not hasattr(self.encoder, "transform")):
            raise ParameterError(f"encoder={self.encoder!r}", expected="a transformer of chips or places, or None")

    def _encode_columns(self, X: Any, *, reset: bool) -> Any:
        """X, or the latents of its images."""
        if reset:
            self.encoder_ = None if self.encoder is None else clone(self.encoder).fit(X)
        return X if self.encoder_ is None else self.encoder_.transform(X)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        check_coding(data.treatment)
        self.binary_ = is_binary(data.treatment)
        base = BayesianLinearEffect(random_state=self.random_state) if self.base is None else self.base
        if not self.binary_ and final_estimator(base)[1]._binary_treatment:
            raise TreatmentError(
                f"the treatment is a dose, and {type(final_estimator(base)[1]).__name__} takes binary ones only",
                expected="a base for doses, such as BayesianLinearEffect",
            )
        self.seed_ = seed_of(self.random_state)
        rng = np.random.default_rng(self.seed_)
        self.binary_outcome_ = self._outcome_is_binary(data.y)
        self.design_effect_ = vluci_report.design_effect(data.X, data.treatment, data.y, data.groups)
        self.engine_ = self._engine(data, rng)
        X, t, y = data.X, data.treatment, data.y
        self.latents_ = self.engine_.training(X, t, y, rng)
        self.report_ = vluci_report.report(self.latents_, X, t, data.sample_weight)
        self._warn()
        self._fit_members(base, data)

    def _outcome_is_binary(self, y: FloatArray) -> bool:
        zero_one = bool(np.isin(y, (0.0, 1.0)).all() and len(np.unique(y)) == 2)
        if self.outcome == "binary" and not zero_one:
            raise ParameterError("outcome='binary' for a y with other values than 0 and 1", expected="both, and only")
        return zero_one and self.outcome != "continuous"

    def _engine(self, data: FitData, rng: np.random.Generator) -> Any:
        X, t, y = data.X, data.treatment, data.y
        kinds = (self.binary_, self.binary_outcome_)
        weight = data.sample_weight / self.design_effect_
        nothing = len(y) < MIN_UNITS or bool(np.ptp(y) == 0)
        if nothing:
            warn(f"{len(y)} units or a constant outcome: no confounder is inferred", DataWarning)
        if self.inference == "variational" and not nothing and data.propensity is None:
            self.probability_ = float("nan")
            options = (self._network_settings(), int(self.n_networks), int(self.n_imputations), rng)
            return vluci_engine.fit_variational(X, t, y, weight, kinds, *options)
        none = nothing or data.propensity is not None
        probability = 0.0 if none else float(self.prior_confounding)
        prior = Prior(
            probability, float(self.link_scale), self.binary_, self.noise == "flexible", YES_NO[self.confounder]
        )
        engine = vluci_engine.fit_marginal(
            X, t, y, weight, kinds, prior, int(self.n_grid), int(self.n_imputations), rng
        )
        self.probability_ = engine.grid.probability if self.binary_ else float("nan")
        return engine

    def _network_settings(self) -> NetworkSettings:
        return NetworkSettings(
            n_latents=int(self.n_latents),
            hidden=int(self.hidden),
            warmup=int(self.warmup),
            independence=float(self.independence),
            link_scale=float(self.link_scale),
            max_epochs=int(self.max_epochs),
            device=self.device,
            progress=bool(self.progress),
        )

    def _warn(self) -> None:
        """Warn of problems; that nothing is known of L is one only where the networks were to find it."""
        bad = [note for note in self.report_.notes if self.inference == "variational" or "collapsed" not in note]
        if bad:
            warn("; ".join(bad), DataWarning)

    def _fit_members(self, base: Any, data: FitData) -> None:
        all_units = np.arange(len(data.y))
        self.members_ = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for latent in self.latents_:
                X = self._with_latent(data.X, latent)
                self.members_.append(fit_member("base", clone(base), X, data, all_units))
            self.shift_ = 0.0
            self.ate_draws_ = self._average(data)
            self.shift_ = self._shift(base, data)
        _warn_once(caught)
        self.ate_draws_ = self.ate_draws_ + self.shift_

    def _average(self, data: FitData) -> FloatArray:
        """Draws of the average effect on the training units."""
        parts = [
            self._pooled(data.X[c], np.ones(len(data.X[c])), 0.0) @ data.sample_weight[c] for c in chunks(len(data.y))
        ]
        return np.asarray(np.sum(parts, axis=0) / data.sample_weight.sum())

    def _shift(self, base: Any, data: FitData) -> float:
        """Correction of the average for the imputations' sampling error, by the posterior weight of no confounder.

        With that weight, the base with X alone, moved by the latent model's own difference, counts instead.
        """
        expected = getattr(self.engine_, "expected_move", None)
        if expected is None or not self.binary_ or self.binary_outcome_ or self.probability_ in (0.0, 1.0):
            return 0.0
        model, X = self._alone(base, data)
        weight = data.sample_weight / data.sample_weight.sum()
        parts = [effect(model, take(X, c)).draws.mean(axis=0) @ weight[c] for c in chunks(len(data.y))]
        alone = float(np.sum(parts))
        return (1 - self.probability_) * (alone + float(expected) - float(self.ate_draws_.mean()))

    def _alone(self, base: Any, data: FitData) -> tuple[Any, Any]:
        """The base fitted to X alone, and that X; where the base names the column of L, that column is noise."""
        all_units, noise = np.arange(len(data.y)), np.random.default_rng([self.seed_, 3]).standard_normal(len(data.y))
        X = self._with_latent(data.X, np.empty((len(data.y), 0)))
        try:
            return fit_member("base", clone(base), X, data, all_units), X
        except ColumnError:
            X = self._with_latent(data.X, noise[:, None])
            return fit_member("base", clone(base), X, data, all_units), X

    def _with_latent(self, X: FloatArray, latent: FloatArray) -> Any:
        """Features as they came, with their missing values and names, and the latents as further columns."""
        p = self.n_features_in_
        raw = X[:, :p].copy()
        for column, j in enumerate(self.imputation_.indicators):
            raw[X[:, p + column] > 0.5, j] = np.nan
        joined = np.column_stack([raw, latent])
        if not hasattr(self, "feature_names_in_"):
            return joined
        import pandas as pd

        names = [f"unobserved {j}" for j in range(latent.shape[1])]
        return pd.DataFrame(joined, columns=[*self.feature_names_in_, *names])

    def _support_columns(self) -> Any:
        if not hasattr(self, "members_") or hasattr(self.members_[0], "steps"):
            return slice(None)
        columns = self.members_[0]._support_columns()
        return columns if isinstance(columns, slice) else columns[columns < self.n_features_in_]

    # ------------------------------------------------------------------ effects
    def _count(self) -> int:
        return max(1, int(self.n_draws) // len(self.members_))

    def _pooled(self, X: FloatArray, level: Any, baseline: Any) -> FloatArray:
        """Draws (draw, unit) of all members, averaged over the prior of L."""
        parts = []
        for i, model in enumerate(self.members_):
            nodes, weights = self.engine_.prior_nodes(i)
            total: Any = 0.0
            for node, weight in zip(nodes, weights, strict=True):
                joined = self._with_latent(X, np.tile(node, (len(X), 1)))
                draws = effect(model, joined, treatment=level, baseline=baseline).draws
                total = total + weight * draws[thin(len(draws), self._count())]
            parts.append(total)
        move = self.shift_ * (np.asarray(level, dtype=float) - np.asarray(baseline, dtype=float))
        return np.concatenate(parts) + move

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        parts = [self._pooled(X[c], treatment[c], baseline[c]) for c in chunks(len(X))]
        return np.concatenate(parts, axis=1)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        diagnostics: dict[str, Any] = {
            "source": f"{len(self.members_)} imputations of L, {self.inference} inference",
            "probability of confounding": self.probability_,
        }
        if isinstance(self.engine_, vluci_engine.Marginal):
            diagnostics |= vluci_report.law_shares(self.engine_.grid)
        for name in ("known", "treatment_r2", "x_r2"):
            diagnostics[f"latent {name}"] = ", ".join(f"{v:.3f}" for v in getattr(self.report_, name))
        return diagnostics

    def _summary(self) -> Summary:
        table = vluci_report.summary_table(self.ate_draws_, len(self.members_))
        info = {
            "units": self.n_units_,
            "clusters": self.n_groups_,
            "treated share or mean dose": self.treated_share_,
            "design effect": self.design_effect_,
            **self._diagnostics(),
        }
        looked = isinstance(self.engine_, vluci_engine.Marginal) and len(self.engine_.grid.places) > 0
        region = self.likelihood_region(0.95) if looked else None
        notes = vluci_report.summary_notes(region, self.report_.notes, identified=self.binary_)
        return Summary("VLUCI: effects under unobserved confounding", table, info, notes)

    # ------------------------------------------------------------------ units whose outcome was observed
    def _observed(self, X: Any, y: Any, treatment: Any) -> tuple[FloatArray, FloatArray, FloatArray, Any]:
        """Checked units that were observed: X, y, treatment, index."""
        design, index = self._check_predict(X)
        if treatment is None:
            treatment = self.treatment_name_
        values, _ = inputs.column_or_array(X, treatment, "treatment")
        outcome = inputs.check_outcome(align_outcome(X, y, treatment=values), len(design))
        t = _observed_treatment(values, len(design), binary=self.binary_)
        return design, outcome, t, index

    def infer_confounders(
        self, X: Any, y: ArrayLike, treatment: ArrayLike | str | None = None, *, n_draws: int | None = None
    ) -> FloatArray:
        """Draws of the unobserved confounder of units whose treatment and outcome were observed.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        y, treatment : array of shape (n,)
            Their outcome and treatment (or its column in X, by default the one that ``fit`` was given).
        n_draws : int, optional
            Draws; by default one for each imputation. They cycle through the imputations.

        Returns
        -------
        ndarray of shape (n_draws, n, d)
            Draws of L. Its sign is arbitrary: positive moves towards treatment.

        Raises
        ------
        DataError, TreatmentError
            If treatment or outcome cannot be used.
        """
        design, outcome, t, _ = self._observed(X, y, treatment)
        m = self.engine_.n_imputations
        rng = np.random.default_rng([self.seed_, 1])
        return np.array([self.engine_.draw(i % m, design, t, outcome, rng) for i in range(int(n_draws or m))])

    def counterfactual(
        self,
        X: Any,
        y: ArrayLike,
        treatment: ArrayLike | str | None = None,
        *,
        level: ArrayLike = 1.0,
        baseline: ArrayLike = 0.0,
    ) -> EffectPosterior:
        """Effect on units whose treatment and outcome were observed, given what these say of their own L.

        Parameters
        ----------
        X, y, treatment
            As in :meth:`infer_confounders`.
        level, baseline : float or array of shape (n,)
            The levels to contrast.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n). :meth:`effect` is about new units, of which only X is known.
        """
        design, outcome, t, index = self._observed(X, y, treatment)
        high, low = (self._check_level(v, len(t), k) for v, k in ((level, "level"), (baseline, "baseline")))
        draws = self._own(design, outcome, t, high, low)
        diagnostics = self._diagnostics()
        return EffectPosterior(draws, index=index, treatment=level, baseline=baseline, diagnostics=diagnostics)

    def counterfactual_outcome(
        self,
        X: Any,
        y: ArrayLike,
        treatment: ArrayLike | str | None = None,
        *,
        level: ArrayLike = 0.0,
        noise: str = "shared",
    ) -> EffectPosterior:
        """Outcome that observed units would have had at a level.

        Parameters
        ----------
        X, y, treatment
            As in :meth:`infer_confounders`.
        level : float or array of shape (n,)
            The treatment that they would have had.
        noise : {"shared", "independent"}
            Two outcomes of a unit are never seen together, so that nothing says how alike their noise is. "shared":
            it is the same, and the outcome is the unit's own plus the effect of the change, as if all that X and L
            leave open had been decided before the treatment. "independent": noise drawn anew from the law of the
            latent model at that level; intervals are those of an outcome that was decided again. The truth lies
            between them where some of the noise is the unit's own.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``; where the level is their own, their own outcome.

        Raises
        ------
        ParameterError
            If independent noise is asked of a model that has none to draw from: of a yes/no outcome, fitted with
            networks, or without a search for confounding.
        """
        if noise not in ("shared", "independent"):
            raise ParameterError(f"noise={noise!r}", expected="'shared' or 'independent'")
        if noise == "independent":
            self._searched_grid()
            if self.binary_outcome_:
                raise ParameterError(
                    "independent noise of a yes/no outcome",
                    expected="a continuous outcome",
                    todo="read counterfactual(), the change of its probability",
                )
        design, outcome, t, index = self._observed(X, y, treatment)
        other = self._check_level(level, len(t), "level")
        draws = outcome + self._own(design, outcome, t, other, t, anew=noise == "independent")
        return EffectPosterior(
            draws, index=index, kind="outcome", treatment=level, baseline=None, diagnostics=self._diagnostics()
        )

    def _own(
        self,
        X: FloatArray,
        y: FloatArray,
        t: FloatArray,
        level: FloatArray,
        baseline: FloatArray,
        *,
        anew: bool = False,
    ) -> FloatArray:
        """Draws (draw, n) of units' own effects, with ``anew`` also of the change of their noise."""
        rng, fresh = np.random.default_rng([self.seed_, 2]), np.random.default_rng([self.seed_, 4])
        parts = []
        for i, model in enumerate(self.members_):
            latent = self.engine_.draw(i, X, t, y, rng)
            joined = self._with_latent(X, latent)
            rows = []
            for c in chunks(len(X)):
                draws = effect(model, take(joined, c), treatment=level[c], baseline=baseline[c]).draws
                rows.append(draws[thin(len(draws), self._count())])
            own = np.concatenate(rows, axis=1)
            if anew:
                change = self.engine_.draw_noise(i, level, len(own), fresh) - self.engine_.noise(i, X, t, y, latent)
                own = own + np.where(level == t, 0.0, change)
            parts.append(own)
        return np.concatenate(parts) + self.shift_ * (level - baseline)

    # ------------------------------------------------------------------ checks of the assumptions
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
        grid, unit = self._grid()
        return vluci_report.strength_curve(grid, unit, level)

    def laws(self, level: float = 0.9) -> pd.DataFrame:
        """What each law of the confounder and of the noise says of the average effect.

        Where they disagree and none of them is unlikely, the data do not tell which of them holds.

        Parameters
        ----------
        level : float
            Of the regions.

        Returns
        -------
        DataFrame
            A row for each pair of laws, and for no confounder under each law of the noise: ``probability`` given the
            data, ``ate`` of the latent model, and ``lower`` and ``upper``, the effects at the strengths consistent
            with the data under these laws.

        Raises
        ------
        ParameterError
            If the model was fitted with networks, or confounding was ruled out beforehand.
        """
        check_is_fitted(self)
        grid, unit = self._searched_grid()
        if not grid.kinds:
            raise ParameterError("a model of a version that knew one law only", expected="a new fit")
        return vluci_report.law_table(grid, unit, level)

    def likelihood_region(self, level: float = 0.9) -> LikelihoodRegion:
        """Average effects at all strengths of confounding consistent with the data, with no prior of the strength.

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
        grid, unit = self._searched_grid()
        if not 0 < level < 1:
            raise ParameterError(f"level={level!r}", expected="a number between 0 and 1")
        return vluci_report.region_of_grid(grid, unit, level, identified=self.binary_)

    def _searched_grid(self) -> tuple[Grid, float]:
        """The same, of a fit that did not rule confounding out."""
        grid, unit = self._grid()
        if not len(grid.places):
            raise ParameterError(
                "a fit that ruled unobserved confounding out (prior_confounding=0, a known propensity, or few units)",
                expected="a fit that looked at strengths of confounding",
            )
        return grid, unit

    def _grid(self) -> tuple[Grid, float]:
        """Posterior of the strength, and the outcome's unit of its effects."""
        if not isinstance(self.engine_, vluci_engine.Marginal):
            raise ParameterError("a model fitted with networks", expected="inference='marginal'")
        return self.engine_.grid, self.engine_.scaling.effect_unit

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
        return self._refits(settings, X, y, {"treatment": treatment, **roles}, level)

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
        return self._refits(settings, X, y, {"treatment": treatment, **roles}, level)

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
        """Refit with treatments drawn again at random, as in a trial: no effect, and L must not predict them.

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
        import pandas as pd

        values, _ = inputs.column_or_array(X, treatment, "treatment")
        t = inputs.check_treatment(values, len(np.asarray(y)), binary=False)
        rows = {}
        for i in range(int(n_repeats)):
            dealt = np.random.default_rng(i).permutation(t)
            refit = clone(self).fit(X, y, treatment=dealt, **roles)
            rows[f"placebo {i}"] = {**refit._row(level), "treatment_r2": float(refit.report_.treatment_r2.max())}
        return pd.DataFrame(rows).T

    def _refits(
        self, settings: list[tuple[str, dict[str, Any]]], X: Any, y: Any, roles: dict[str, Any], level: float
    ) -> pd.DataFrame:
        """Average effects of refits under changed parameters, a row each."""
        import pandas as pd

        rows = {}
        for name, changes in settings:
            rows[name] = clone(self).set_params(**changes).fit(X, y, **roles)._row(level)
        return pd.DataFrame(rows).T

    def _row(self, level: float) -> dict[str, float]:
        low, high = draw_quantiles(self.ate_draws_, [(1 - level) / 2, (1 + level) / 2])
        mean = float(self.ate_draws_.mean())
        return {"ate": mean, "lower": float(low), "upper": float(high), "probability": self.probability_}


def _observed_treatment(values: Any, n: int, *, binary: bool) -> FloatArray:
    """Treatments of observed units; they may all be of one arm."""
    if values is None:
        raise TreatmentError("no treatment", expected="the treatment that the units had", todo="pass treatment=")
    t = np.asarray(values, dtype=float)
    if t.shape != (n,) or not np.isfinite(t).all() or (binary and not np.isin(t, (0.0, 1.0)).all()):
        raise TreatmentError(
            f"treatment of shape {t.shape}",
            expected=f"{n} finite values" + (", 0 or 1" if binary else ""),
        )
    return t


def _warn_once(caught: list[warnings.WarningMessage]) -> None:
    """Issue what the fits of the base warned of, one warning a category, with the number of fits that gave it."""
    by_category: dict[type[Warning], list[str]] = {}
    for item in caught:
        by_category.setdefault(item.category, []).append(str(item.message))
    for category, messages in by_category.items():
        extra = f" (and {len(messages) - 1} more such warnings of the base's fits)" if len(messages) > 1 else ""
        warn(messages[0] + extra, category)
