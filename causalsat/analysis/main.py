"""Conduct the analysis of a study: check, average effects, cross-fitted validation, final fit, outputs."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.analysis.arms import ArmsAnalysis, pairs_of
from causalsat.analysis.measured import Measured, measure
from causalsat.analysis.modifiers import beside_images
from causalsat.analysis.outputs import collect_metrics, write_outputs
from causalsat.analysis.places import effects_at_places
from causalsat.analysis.show import analysis_html, analysis_text, plot_analysis
from causalsat.base import effect, final_estimator
from causalsat.core.inputs import learn_imputation
from causalsat.core.names import p_words, printed
from causalsat.core.progress import in_steps, step
from causalsat.core.tables import Tabular
from causalsat.design import Design
from causalsat.encoders import ImageEncoder, RandomConvFeatures
from causalsat.encoders.encode_once import encode_once
from causalsat.encoders.places import COORDINATES, PLACE, WAVES
from causalsat.estimators.arms import ArmsEffect
from causalsat.estimators.linear.estimator import BayesianLinearEffect
from causalsat.evaluation import (
    BlpResult,
    Compliance,
    CrossfitEffects,
    ExplainedHeterogeneity,
    GatesResult,
    LeeBounds,
    Nuisances,
    OverlapResult,
    PermutationResult,
    PredictionPowered,
    RateResult,
    Sensitivity,
    arm_effects,
    blp,
    crossfit_effects,
    crossfit_nuisances,
    explained_heterogeneity,
    gates,
    overlap,
    permutation_test,
    rate,
)
from causalsat.evaluation.average_effects import ADJUSTED, average_effects, score_average
from causalsat.evaluation.best_arm import best_arm
from causalsat.exceptions import ParameterError
from causalsat.inference.folds import seeded
from causalsat.inference.response import Response
from causalsat.inference.robust import t_interval, t_p_value
from causalsat.inference.sensitivity import partially_linear
from causalsat.inference.stacking import thin
from causalsat.posterior import EffectPosterior
from causalsat.report.page import flat_metrics
from causalsat.study.response import features_of_response

__all__ = ["Analysis", "analyse", "image_model"]

FloatArray = NDArray[np.float64]
LOG = logging.getLogger(__name__)
N_EXPLAINED = 200  # draws from which the share of explained variance is taken

BY_LABELS = ("sklearn.feature_selection", "sklearn.cross_decomposition", "sklearn.discriminant_analysis")
FEATURES_BY_FEATURES = ("sklearn.impute",)  # whose regressions predict features


def image_model(
    study: Any,
    estimator: Any = None,
    *,
    size_m: float | Sequence[float] | None = None,
    encoder: Any = None,
    n_components: int | float | None = 20,
    covariates: str = "adjust",
    coordinates: bool | str = False,
    random_state: int = 0,
) -> Any:
    """The default model of a study: image features at the units' places, then a Bayesian linear effect.

    The effect is linear in 20 components whose interactions have falling prior variance (``ordered``). Intervals
    cover too little where the effect is far from linear in the components. Accuracy and coverage on simulated trials:
    ``benchmarks/RESULTS.md``.

    Parameters
    ----------
    study : Study
        With imagery.
    estimator : EffectEstimator, optional
        Default ``BayesianLinearEffect(modifiers="img*", ordered="img*", prior="normal")``; with smooth coordinates,
        or coordinates and covariates among the modifiers, ``prior="horseshoe"``.
    size_m : float or sequence of float, optional
        Side of the chip around each place in metres; by default the study's ``chip_size_m``, or 32 pixels.
    encoder : transformer of chips, optional
        Default :class:`causalsat.RandomConvFeatures` with band statistics.
    n_components : int, float or None
        Principal components of the image features.
    covariates : {"adjust", "modify", "ignore"}
        ``"adjust"``: covariates sharpen the estimate, the effect depends on the image only and can be mapped;
        ``"modify"``: the effect depends on them too, and where they are missing, as on a map, on their means;
        ``"ignore"``: images only. Covariates that modify stand outside the order of the prior. With coordinates
        beside them the prior is the horseshoe, which shrinks each modifier separately.
    coordinates : bool or "smooth"
        Let the effect change with the place as well, linearly in its coordinates, which come third and fourth in the
        order of the prior. It is for ranking places within the region of the trial: it helps where a part of the
        heterogeneity is a trend in space that the images do not show. Outside the region it extrapolates that trend.
        ``"smooth"`` adds slow waves across the region, after the coordinates and after six components, so that the
        trend may bend; the prior is the horseshoe.
    random_state : int
        Seed of the encoder and of the estimator.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``images`` (:class:`causalsat.ImageEncoder`) and ``effect``.

    Raises
    ------
    ParameterError
        If the study has no imagery, or ``covariates`` is none of the three.
    """
    from sklearn.pipeline import Pipeline

    if study.imagery is None:
        raise ParameterError(
            f"the study {study.name!r} has no imagery",
            expected="imagery= of Study",
            todo="pass imagery=causalsat.open_imagery('raster.tif'), or fit an estimator on study.X directly",
        )
    if covariates not in ("adjust", "modify", "ignore"):
        raise ParameterError(f"covariates={covariates!r}", expected="'adjust', 'modify' or 'ignore'")
    if estimator is None:
        modifiers: Any = "img*"
        ordered: Any = "img*"
        if coordinates:
            first = [] if n_components is None else ["img[01]"]
            modifiers, ordered = ["img*", *COORDINATES], [*first, *COORDINATES, "img*"]
        if coordinates == "smooth":
            modifiers += WAVES
            early, later = WAVES[:3], WAVES[3:]
            nearly = ["img[2-5]"] if isinstance(n_components, int) and n_components > 2 else []
            ordered = [*first, *COORDINATES, *early, *nearly, *later, "img*"]
        if covariates == "modify":
            modifiers = None
        shrunk_apart = coordinates == "smooth" or (covariates == "modify" and coordinates)
        prior = "horseshoe" if shrunk_apart else "normal"
        estimator = BayesianLinearEffect(modifiers=modifiers, ordered=ordered, prior=prior, random_state=random_state)
    images = ImageEncoder(
        study.imagery,
        size_m=_chip_size(study) if size_m is None else size_m,
        encoder=RandomConvFeatures(statistics=True, random_state=random_state) if encoder is None else encoder,
        n_components=n_components,
        keep=() if covariates == "ignore" else tuple(study.covariates),
        coordinates=coordinates,
    )
    return Pipeline([("images", images), ("effect", estimator)])


def _chip_size(study: Any) -> float:
    if study.chip_size_m is not None:
        return float(study.chip_size_m)
    first = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    return float(32 * first.resolution_m)


AS_THEY_ARE = "average effect, if who responds depends on nothing that moves the outcome"
OF_PREDICTIONS = "effect on the prediction, not on the outcome"
CORRECTED = "prediction-powered"


@dataclass(frozen=True)
class Analysis(Tabular):
    """What :func:`analyse` found; prints as a short text, :meth:`write` makes the outputs.

    Attributes
    ----------
    study : Study
        What was analysed.
    model : estimator or Pipeline
        Fitted to all units.
    check : StudyReport
        Findings about the data.
    average : DataFrame
        Average effects by method: ``estimate, se, lower, upper`` (95 %) and the ``estimand`` of each row.
    posterior, places : EffectPosterior
        Effects of the units, and of the study's further places (None without any).
    places_support : ndarray or None
        Support of the further places.
    nuisances : Nuisances
        Propensity and outcome models, cross-fitted.
    scores : ndarray of shape (n,)
        Doubly robust scores of the units, of corrected or weighted outcomes where they are predicted or missing.
    crossfit : tuple of CrossfitEffects
        Out-of-fold effects, one a fold seed.
    autoc, qini : tuple of RateResult
        RATE of those, one a fold seed; the first seed's curves are the ones shown.
    blp, gates, overlap : results
        Calibration of the first seed's out-of-fold effects, and overlap.
    permutation : PermutationResult or None
        Test of no heterogeneity along the image features, and coordinates or covariates that the effects follow;
        along features made without labels where the model's encoder is trained on outcomes or treatment. None for an
        observational study, which was not randomised.
    level : float
        Level of the intervals of single effects.
    fold_seeds : tuple of int
        Seeds of ``crossfit``.
    sensitivity : Sensitivity or None
        Of the adjusted estimate of an observational study, to an unobserved confounder.
    predicted : PredictionPowered or None
        Corrected and uncorrected average effect, where a model predicted the outcome and a subset was measured.
    response : Response or None
        Probabilities of response, where outcomes are missing and ``missing_outcome="weight"``.
    lee : LeeBounds or None
        Bounds on the average effect among units that respond in either arm, where outcomes are missing.
    explained_heterogeneity : ExplainedHeterogeneity or None
        Share of the effects' variance that the model explains, and how much places' own effects deviate.
    compliance : Compliance or None
        Of a study with take-up: intention to treat, first stage and the effect on compliers, of weighted respondents
        where outcomes are missing and of corrected outcomes where they are predicted; every other figure is of the
        intention to treat.
    label_free : bool
        Whether the nuisances and the permutation test use features made without labels in place of the model's.
    """

    study: Any
    model: Any
    check: Any
    average: pd.DataFrame
    posterior: EffectPosterior
    places: EffectPosterior | None
    places_support: FloatArray | None
    nuisances: Nuisances
    scores: NDArray[np.float64]
    crossfit: tuple[CrossfitEffects, ...]
    autoc: tuple[RateResult, ...]
    qini: tuple[RateResult, ...]
    blp: BlpResult
    gates: GatesResult
    overlap: OverlapResult
    permutation: PermutationResult | None
    level: float = 0.9
    fold_seeds: tuple[int, ...] = ()
    sensitivity: Sensitivity | None = None
    label_free: bool = False
    predicted: PredictionPowered | None = None
    response: Response | None = None
    lee: LeeBounds | None = None
    explained_heterogeneity: ExplainedHeterogeneity | None = None
    compliance: Compliance | None = None

    @property
    def headline(self) -> str:
        """Row of ``average`` to report first: adjusted without randomisation or with missing outcomes, corrected."""
        if self.predicted is not None and self.study.randomised:
            return CORRECTED
        whole = self.study.randomised and self.response is None
        return "difference in means" if whole else "doubly robust (AIPW)"

    def verdict(self) -> str:
        """One sentence on whether the heterogeneity is real."""
        beside = beside_images(self.model, self.study.covariates)
        slope = f"{self.blp.slope:.2f} with standard error {self.blp.slope_se:.2f}"
        if self.permutation is None:
            return (
                f"Observational study: AUTOC ratio {self.autoc[0].ratio:.2f}, calibration slope {slope} "
                "for effects that follow "
                f"{beside.joined('what the images show', 'or')}. Nobody drew the assignment, so that no permutation "
                "test decides, and an unmeasured confounder can look like an effect that varies."
            )
        p, ratio = self.permutation.p_value, self.autoc[0].ratio
        if p > 0.05:
            return (
                f"Heterogeneity along {beside.joined('the image features', 'and')} is not distinguishable from zero "
                f"(permutation test {p_words(p)}, AUTOC ratio {ratio:.2f}): "
                "read the map as the average effect with noise."
            )
        return (
            f"The effect varies with {beside.joined('what the images show', 'or')} (permutation test {p_words(p)}, "
            f"AUTOC ratio {ratio:.2f}, calibration slope {slope})."
        )

    def __str__(self) -> str:
        """Average effects, the verdict and the estimator's own summary."""
        _, estimator = final_estimator(self.model)
        table = self.average[["estimate", "se", "lower", "upper"]].astype(float).round(4)
        table["estimand"] = self.average["estimand"]
        taken = "" if self.compliance is None else f"\n\n{self.compliance!r}"
        return printed(f"{self.study!r}\n\n{table.to_string()}{taken}\n\n{self.verdict()}\n\n{estimator.summary()}")

    def __repr__(self) -> str:
        """Say what was analysed, the average effects and the verdict, in a few lines."""
        return printed(analysis_text(self))

    def _repr_html_(self) -> str:
        """Average effects, the verdict, the targeting curve and the groups' effects, for notebooks."""
        return analysis_html(self)

    def to_dataframe(self) -> pd.DataFrame:
        """Average effects by method: ``estimate, se, lower, upper`` (95 %) and the ``estimand`` of each row."""
        table = self.average[["estimate", "se", "lower", "upper"]].astype(float)
        return table.assign(estimand=self.average["estimand"])

    def plot(self) -> Any:
        """Draw average effects, the targeting curve, the groups' effects and the units' effects in one figure.

        Returns
        -------
        ndarray of matplotlib Axes of shape (2, 2)
        """
        return plot_analysis(self)

    def metrics(self) -> dict[str, Any]:
        """Every figure of the report under flat keys."""
        return flat_metrics(collect_metrics(self))

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        region: Any = None,
        resolution: float | None = None,
        min_valid: float | None = None,
        progress: bool = True,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write report, map, figures, metrics and the fitted model to a folder.

        Parameters
        ----------
        folder : path-like
            Made if it does not exist; an interrupted map in it is continued. The outputs of an earlier run of the
            same study are replaced.
        region, resolution, min_valid, progress
            Passed to :func:`causalsat.map_effects`. Without a resolution the map has about 250,000 cells; where one
            asks for more, a tile is measured first, and a map that takes long is warned of.
        overwrite : bool
            Replace the outputs of another study, and other files under the names of outputs.

        Returns
        -------
        list of Path
            ``report.html``, the same as ``report.md`` and ``report.tex``, ``effects.tif, effects.png, map.html,
            toc.png, metrics.json, model.safetensors``, and ``places.csv`` where the study has further places.
            Without the extra ``maps`` there is no ``map.html``. ``outputs.json`` says whose files they are.

        Raises
        ------
        OutputError
            If the folder holds the outputs of another study, or cannot be written.
        """
        options: dict[str, Any] = {"region": region, "resolution": resolution, "min_valid": min_valid}
        return write_outputs(self, Path(folder), progress=progress, overwrite=overwrite, **options)


@in_steps(4, "analysis")
def analyse(
    study: Any,
    model: Any = None,
    *,
    n_folds: int = 5,
    fold_seeds: Sequence[int] = (0,),
    cv: Any = None,
    n_permutations: int = 499,
    n_bootstrap: int = 200,
    level: float = 0.9,
    random_state: int = 0,
    progress: bool = True,
) -> Any:
    """Check a study, estimate its average and conditional effects, and test whether the heterogeneity is real.

    An image encoder that sees no labels is fitted once, to the images of all units, and encodes each place once; the
    components of its features, and everything that sees outcomes or treatment, are learned in each training fold.

    Parameters
    ----------
    study : Study
        With a binary treatment and imagery. Its design (clusters, strata, probabilities, weights) reaches every
        number. With ``randomised=False`` the propensity is estimated from images and covariates, the adjusted
        estimate comes first, with its sensitivity, and there is no permutation test.
    model : Pipeline, optional
        A transformer of the study's X followed by an effect estimator; default :func:`image_model`.
    n_folds : int
        Folds over clusters of the out-of-fold effects and of the nuisance models.
    fold_seeds : sequence of int
        Seeds of the folds; the RATE is reported for each of them.
    cv : splitter, optional
        Folds of the out-of-fold effects in the place of ``n_folds`` over clusters, such as
        :class:`causalsat.evaluation.SpatialBlockCV`, whose training rows are used as they are: a buffer stays out.
        With several fold seeds it is used with each as its ``random_state``.
    n_permutations, n_bootstrap : int
        Draws of the permutation test and of the RATE's standard error.
    level : float
        Level of the intervals of single effects.
    random_state : int
        Seed of nuisance folds, bootstrap and permutations.
    progress : bool
        Show progress bars.

    Returns
    -------
    Analysis or ArmsAnalysis
        Results; call its ``write(folder)`` for the report and the map. Of several arms
        (``Study(..., control=...)``) every arm is compared with control and with each other.

    Raises
    ------
    DataError
        If the check of the study finds errors, or what this analysis cannot take (several arms, doses, text
        covariates); the message lists them.
    """
    check = study.check()
    check.raise_if_errors(analyse=True)
    study = _in_the_population(study)
    settings = {"n_folds": n_folds, "fold_seeds": fold_seeds, "cv": cv, "n_permutations": n_permutations}
    settings |= {"n_bootstrap": n_bootstrap, "random_state": random_state, "progress": progress}
    conduct = _analyse_arms if study.has_arms else _analyse_treatment
    with encode_once(study.X):
        return conduct(study, model, check, level, settings)


def _analyse_treatment(study: Any, model: Any, check: Any, level: float, settings: dict[str, Any]) -> Analysis:
    """Analysis of one treatment against control."""
    n_folds, fold_seeds, cv = settings["n_folds"], settings["fold_seeds"], settings["cv"]
    random_state, progress = settings["random_state"], settings["progress"]
    design = study.design
    model = image_model(study, random_state=random_state) if model is None else model
    LOG.info("cross-fitting %s units of %s", len(study), study.name)
    step("cross-fitting")
    used = measure(
        study, lambda: _label_free_features(model, study, random_state), n_folds=n_folds, random_state=random_state
    )
    y, t = used.y, design.treatment
    options: dict[str, Any] = {"design": used.design, "level": level, "progress": progress}
    folds = zip(fold_seeds, used.folds(seeded(n_folds if cv is None else cv, fold_seeds), fold_seeds), strict=True)
    fits = tuple(crossfit_effects(model, study.X, y, cv=own, random_state=seed, **options) for seed, own in folds)
    LOG.info("fitting the model on all units")
    step("fitting the model on all units")
    used.study.fit(model)
    trained = is_trained_on_labels(model)
    latents, covariates, modify = features_of_tests(model, study, random_state)
    features = np.column_stack([latents, covariates])
    step("outcome models")
    nuisances, scores = used.scores(features, design, lambda: _nuisances(features, y, design, n_folds, random_state))
    LOG.info("testing heterogeneity")
    step("testing heterogeneity")
    ranked = {"design": design, "n_bootstrap": settings["n_bootstrap"], "random_state": random_state}
    first = fits[0]
    posterior = effect(model, study.X)
    study, places, places_support = effects_at_places(model, study)
    return Analysis(
        study=study,
        model=model,
        check=check,
        average=_average_table(study, used, posterior, scores),
        posterior=posterior,
        places=places,
        places_support=places_support,
        nuisances=nuisances,
        scores=scores,
        crossfit=fits,
        autoc=tuple(rate(f.tau, scores, folds=f.fold, method="autoc", **ranked) for f in fits),
        qini=tuple(rate(f.tau, scores, folds=f.fold, method="qini", **ranked) for f in fits),
        blp=blp(first.tau, scores, folds=first.fold, design=design),
        gates=gates(first.tau, scores, folds=first.fold, design=design),
        overlap=overlap(nuisances.propensity, t, pd.DataFrame(latents).add_prefix("img"), weights=design.weights),
        permutation=permutation_test(
            np.column_stack([latents, covariates[:, modify]])[used.seen],
            y[used.seen],
            design=used.study.design,
            covariates=covariates[used.seen][:, ~modify] if not modify.all() else None,
            n_permutations=settings["n_permutations"],
            random_state=random_state,
            progress=progress,
        )
        if design.randomised
        else None,
        level=level,
        fold_seeds=tuple(fold_seeds),
        sensitivity=None
        if design.randomised
        else _sensitivity(latents, covariates, study.covariates, used, nuisances),
        label_free=trained,
        compliance=used.compliance(),
        predicted=used.powered,
        response=used.response,
        lee=used.lee,
        explained_heterogeneity=_explained(posterior, used, level),
    )


def _explained(posterior: EffectPosterior, used: Measured, level: float) -> ExplainedHeterogeneity:
    """Share of the effects' variance that the model of all units explains, from the units with an outcome."""
    few = posterior.draws[thin(posterior.n_draws, min(posterior.n_draws, N_EXPLAINED))]
    seen, design = used.seen, used.design
    return explained_heterogeneity(
        used.y[seen],
        design.treatment[seen],
        few[:, seen],
        groups=None if design.clusters is None else design.clusters[seen],
        weights=None if design.weights is None else design.weights[seen],
        held_out=False,
        level=level,
    )


def _analyse_arms(study: Any, model: Any, check: Any, level: float, settings: dict[str, Any]) -> ArmsAnalysis:
    """Joint averages and a joint model of all arms; tests of each pair on the units of its two arms."""
    from sklearn.base import clone

    seed = settings["random_state"]
    if model is None:
        how = None if study.randomised else "logistic"
        estimator = ArmsEffect(propensity_model=how, modifiers="img*", random_state=seed)
        model = image_model(study, estimator, random_state=seed)
    untrained = clone(model)
    study.fit(model)
    latents, covariates, _ = features_of_tests(model, study, seed)
    comparison = arm_effects(
        study.y,
        study.arm_of_units,
        control=study.arms[0],
        X=np.column_stack([latents, covariates]),
        groups=study.groups,
        strata=study.strata if study.randomised else None,
        sample_weight=study.weights,
        randomised=study.randomised,
        n_splits=settings["n_folds"],
        random_state=seed,
    )
    pairs = {pair: analyse(part, clone(untrained), level=level, **settings) for pair, part in pairs_of(study)}
    best = best_arm(model, study.X)
    return ArmsAnalysis(study, model, check, comparison.to_dataframe(), comparison, pairs, best, level)


def _in_the_population(study: Any) -> Any:
    """The study without units of weight zero, which are in no population."""
    weights = study.weights
    if weights is None or not (weights == 0).any():
        return study
    return study.subset(weights > 0)


def is_trained_on_labels(model: Any) -> bool:
    """Whether a step before the estimator, or a part of one, is trained on outcomes or treatment.

    Encoders of this package say so. Transformers of scikit-learn and others are known by their module, by the tag of
    their target, or by a ``fit`` that demands ``y``.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.feature_selection import SelectKBest
    >>> from sklearn.pipeline import make_pipeline
    >>> from causalsat import DoublyRobustEffect
    >>> [is_trained_on_labels(make_pipeline(step, DoublyRobustEffect())) for step in (PCA(), SelectKBest())]
    [False, True]
    """
    return any(_reads_labels(step) for _, step in getattr(model, "steps", [])[:-1])


def _reads_labels(step: Any) -> bool:
    from sklearn.utils import get_tags

    module = type(step).__module__
    if getattr(step, "requests_roles", False):
        return True
    if not hasattr(step, "fit") or isinstance(step, type) or module.startswith(FEATURES_BY_FEATURES):
        return False
    if module.startswith(BY_LABELS) and type(step).__name__ != "VarianceThreshold":
        return True
    outcome = inspect.signature(step.fit).parameters.get("y")
    if outcome is not None and outcome.default is inspect.Parameter.empty:
        return True
    if not hasattr(step, "get_params"):
        return False
    parts = step.get_params(deep=True).values()
    return bool(get_tags(step).target_tags.required) or any(_reads_labels(part) for part in parts)


def _without_labels(model: Any, study: Any, random_state: int) -> Any:
    """Features of the units' images made without labels, for nuisances and tests: a fitted default pipeline.

    Features of an encoder (or a selection of features) that was trained on these outcomes hold the units' own noise,
    so that a test along them rejects, and outcome models follow them, whatever is true.
    """
    from sklearn.pipeline import Pipeline

    sized = next((step.size_m for _, step in model.steps[:-1] if getattr(step, "size_m", None) is not None), None)
    plain = image_model(study, size_m=sized, random_state=random_state)
    images = plain.steps[0][1].fit(study.X)
    return Pipeline([("images", images), ("effect", final_estimator(model)[1])])


def _nuisances(features: FloatArray, y: FloatArray, design: Design, n_folds: int, random_state: int) -> Nuisances:
    roles: dict[str, Any] = {"groups": design.clusters, "sample_weight": design.weights}
    if design.randomised:
        roles |= {"strata": design.strata, "propensity": design.stated_probability}
    else:
        roles["propensity_model"] = "logistic"
    return crossfit_nuisances(features, y, design.treatment, n_splits=n_folds, random_state=random_state, **roles)


def _sensitivity(
    latents: FloatArray, covariates: FloatArray, names: Sequence[str], used: Measured, found: Nuisances
) -> Sensitivity:
    """How strong an unmeasured confounder would have to be to explain the adjusted estimate away.

    The benchmarks are the image features together and each covariate.
    """
    k = latents.shape[1]
    benchmarks: dict[str, Any] = {"image features": list(range(k))} if k else {}
    benchmarks |= {str(name): [k + j] for j, name in enumerate(names)}
    rows = used.seen
    design, y = used.design.take(rows), used.y[rows]
    return partially_linear(
        y - found.m[rows],
        design.treatment - found.propensity[rows],
        np.column_stack([latents, covariates])[rows],
        weight=np.ones(len(y)) if design.weights is None else design.weights,
        groups=design.clusters,
        y=y,
        treatment=design.treatment,
        benchmarks=benchmarks,
    )


def features_of_tests(model: Any, study: Any, random_state: int) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """What nuisances and the permutation test take: features made without labels, whatever the model's are made of.

    Parameters
    ----------
    model : Pipeline
        With fitted transformers.
    study : Study
        Whose units are transformed.
    random_state : int
        Seed of the default encoder, which is in the place of a step that is trained on labels.

    Returns
    -------
    latents : ndarray of shape (n, k)
        Image features.
    covariates : ndarray of shape (n, p)
        Covariates with missing-value indicators, and coordinates.
    modify : ndarray of bool of shape (p,)
        On which of them the model's effect may depend.
    """
    if is_trained_on_labels(model):
        model = _without_labels(model, study, random_state)
    transformers, _ = final_estimator(model)
    table = study.X.drop(columns="geometry") if transformers is None else transformers.transform(study.X)
    latents = pd.DataFrame(table)
    names = tuple(study.covariates)
    placed = [c for c in latents.columns if c in PLACE and c not in names]
    raw = study.X[list(names)].to_numpy(dtype=float)
    covariates = learn_imputation(raw, names).apply(raw, names) if names else np.empty((len(study), 0))
    beside = beside_images(model, names)
    modify = np.zeros(covariates.shape[1] + len(placed), dtype=bool)
    modify[: len(names)] = [name in beside.covariates for name in names]
    modify[covariates.shape[1] :] = [name in beside.coordinates for name in placed]
    covariates = np.column_stack([covariates, latents[placed].to_numpy(dtype=float)])
    images = latents[[c for c in latents.columns if c not in (*names, *placed)]].to_numpy(dtype=float)
    return images, covariates, modify


def _label_free_features(model: Any, study: Any, random_state: int) -> FloatArray:
    """Features of all units that response may depend on: the model's before its estimator, made without labels."""
    if not is_trained_on_labels(model):
        return features_of_response(model, study.X)
    images = _without_labels(model, study, random_state).steps[0][1].transform(study.X)
    return features_of_response(None, pd.DataFrame(images))


def _with_corrections(table: pd.DataFrame, powered: PredictionPowered) -> pd.DataFrame:
    """Rows of the corrected outcome, with the correction's own standard error, and of the predictions as they are."""
    corrected = table.loc["difference in means"].copy()
    for name in ("estimate", "se", "df"):
        corrected[name] = getattr(powered, name)
    corrected["lower"], corrected["upper"] = t_interval(powered.estimate, powered.se, powered.df)
    corrected["p_value"] = float(t_p_value(powered.estimate, powered.se, powered.df))
    found = pd.concat([pd.DataFrame({CORRECTED: corrected}).T, table.drop(index="difference in means")])
    plain = powered.uncorrected
    lower, upper = plain.interval()
    own: dict[str, Any] = {"estimate": plain.estimate, "se": plain.se, "lower": lower, "upper": upper}
    own |= {"p_value": plain.p_value, "df": plain.df, "n": plain.n, "clusters": plain.clusters}
    own["estimand"] = OF_PREDICTIONS
    found.loc["predictions, uncorrected"] = own
    return found


def _average_table(study: Any, used: Measured, posterior: EffectPosterior, scores: FloatArray) -> pd.DataFrame:
    design, fitted = study.design, used.study
    covariates = pd.DataFrame(fitted.X[list(study.covariates)])
    table = average_effects(fitted.y, design=fitted.design, covariates=covariates)
    if used.powered is not None:
        table = _with_corrections(table, used.powered)
    if used.response is not None:
        plain = average_effects(study.y[used.seen], design=design.take(used.seen)).iloc[0]
        table.loc["respondents as they are"] = plain
        if design.randomised:
            table.loc["respondents as they are", "estimand"] = AS_THEY_ARE
    bayes = posterior.ate(design.weights)
    lower, upper = bayes.interval(0.95)[0]
    estimand = "average effect" if design.randomised else ADJUSTED
    table.loc["doubly robust (AIPW)"] = score_average(scores, design) | {"estimand": estimand}
    model = {"estimate": float(bayes), "se": bayes.sd()[0], "lower": lower, "upper": upper, "estimand": estimand}
    table.loc["model's posterior"] = model
    return table
