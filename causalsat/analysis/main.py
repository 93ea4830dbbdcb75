"""Conduct the analysis of a study: check, average effects, cross-fitted validation, final fit, outputs."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.analysis.average_effects import average_effects, clustered_mean
from causalsat.analysis.modifiers import beside_images
from causalsat.analysis.places import effects_at_places
from causalsat.base import effect, final_estimator
from causalsat.evaluation import (
    BlpResult,
    CrossfitEffects,
    GatesResult,
    Nuisances,
    OverlapResult,
    PermutationResult,
    RateResult,
    blp,
    crossfit_effects,
    crossfit_nuisances,
    dr_scores,
    gates,
    overlap,
    permutation_test,
    rate,
)
from causalsat.exceptions import ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["Analysis", "analyse", "image_model"]

FloatArray = NDArray[np.float64]
LOG = logging.getLogger(__name__)


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

    The defaults were chosen on simulated trials: 20 components whose interactions have falling prior variance
    (``ordered``) mapped effects about as accurately as ten unordered ones, and their 90 % intervals covered 89 % of
    the true effects on the default variant (``benchmarks/RESULTS.md``), fewer where the effect is far from linear in
    the components.

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
        ``"ignore"``: images only. Covariates that modify stand outside the order of the prior. With
        coordinates beside them the horseshoe, which shrinks each modifier by as much as it needs, ranked unseen
        sites of simulated trials a little better than one scale for all did, and its 90 % intervals held the part
        of the effects that is linear in the features in 87 to 88 % of units, instead of 78 to 80 %, and the whole
        effects, which the features show in part, in 76 to 79 % (``benchmarks/uganda_covariates.py``); without
        coordinates it ranked no better.
    coordinates : bool or "smooth"
        Let the effect change with the place as well, linearly in its coordinates, which come third and fourth in the
        order of the prior: for ranking places within the region of the trial. In simulated trials of the size of
        Uganda's (``benchmarks/uganda_seeds.py``) this ranked unseen sites better where a part of the
        heterogeneity was a trend in space that the images did not show, and a little worse where they showed all of
        it. Outside the region it extrapolates that trend. ``"smooth"`` adds slow waves across the region, after
        the coordinates and after six components, so that the trend may bend, with the horseshoe prior; on outcomes
        simulated at Uganda's places (``benchmarks/uganda_places.py``) it ranked unseen sites better without
        covariates among the modifiers; with them, on the trials for confirmation, the gain was within its error.
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

    from causalsat.encoders import ImageEncoder, RandomConvFeatures
    from causalsat.encoders.coordinates import COORDINATES, WAVES
    from causalsat.estimators.linear.estimator import BayesianLinearEffect

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


@dataclass(frozen=True)
class Analysis:
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
        Average effects by method: ``estimate, se, lower, upper`` (95 %).
    posterior, places : EffectPosterior
        Effects of the units, and of the study's further places (None without any).
    places_support : ndarray or None
        Support of the further places.
    crossfit : tuple of CrossfitEffects
        Out-of-fold effects, one a fold seed.
    autoc, qini : tuple of RateResult
        RATE of those, one a fold seed; the first seed's curves are the ones shown.
    blp, gates, overlap : results
        Calibration of the first seed's out-of-fold effects, and overlap.
    permutation : PermutationResult
        Test of no heterogeneity along the image features, and coordinates or covariates that the effects follow.
    level : float
        Level of the intervals of single effects.
    fold_seeds : tuple of int
        Seeds of ``crossfit``.
    """

    study: Any
    model: Any
    check: Any
    average: pd.DataFrame
    posterior: EffectPosterior
    places: EffectPosterior | None
    places_support: FloatArray | None
    nuisances: Nuisances
    crossfit: tuple[CrossfitEffects, ...]
    autoc: tuple[RateResult, ...]
    qini: tuple[RateResult, ...]
    blp: BlpResult
    gates: GatesResult
    overlap: OverlapResult
    permutation: PermutationResult
    level: float = 0.9
    fold_seeds: tuple[int, ...] = ()

    def verdict(self) -> str:
        """One sentence on whether the heterogeneity is real."""
        p, ratio = self.permutation.p_value, self.autoc[0].ratio
        beside = beside_images(self.model, self.study.covariates)
        if p > 0.05:
            return (
                f"Heterogeneity along {beside.joined('the image features', 'and')} is not distinguishable from zero "
                f"(permutation test p = {p:.3f}, AUTOC ratio {ratio:.2f}): "
                "read the map as the average effect with noise."
            )
        return (
            f"The effect varies with {beside.joined('what the images show', 'or')} (permutation test p = {p:.3f}, "
            f"AUTOC ratio {ratio:.2f}, calibration slope {self.blp.slope:.2f} with standard error "
            f"{self.blp.slope_se:.2f})."
        )

    def __str__(self) -> str:
        """Average effects, the verdict and the estimator's own summary."""
        _, estimator = final_estimator(self.model)
        table = self.average[["estimate", "se", "lower", "upper"]].astype(float).round(4)
        return f"{self.study!r}\n\n{table.to_string()}\n\n{self.verdict()}\n\n{estimator.summary()}"

    def metrics(self) -> dict[str, Any]:
        """Every figure of the report under flat keys."""
        from causalsat.analysis.outputs import collect_metrics
        from causalsat.report.page import flat_metrics

        return flat_metrics(collect_metrics(self))

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        region: Any = None,
        resolution: float | None = None,
        min_valid: float | None = None,
        progress: bool = True,
    ) -> list[Path]:
        """Write report, map, figures, metrics and the fitted model to a folder.

        Parameters
        ----------
        folder : path-like
            Made if it does not exist; an interrupted map in it is continued.
        region, resolution, min_valid, progress
            Passed to :func:`causalsat.map_effects`.

        Returns
        -------
        list of Path
            ``report.html``, the same as ``report.md`` and ``report.tex``, ``effects.tif, effects.png, map.html,
            toc.png, metrics.json, model.safetensors``, and ``places.csv`` where the study has further places.
        """
        from causalsat.analysis.outputs import write_outputs

        return write_outputs(
            self, Path(folder), region=region, resolution=resolution, min_valid=min_valid, progress=progress
        )


def analyse(
    study: Any,
    model: Any = None,
    *,
    n_folds: int = 5,
    fold_seeds: Sequence[int] = (0,),
    n_permutations: int = 499,
    n_bootstrap: int = 200,
    level: float = 0.9,
    random_state: int = 0,
    progress: bool = True,
) -> Analysis:
    """Check a study, estimate its average and conditional effects, and test whether the heterogeneity is real.

    Parameters
    ----------
    study : Study
        With a binary treatment and imagery.
    model : Pipeline, optional
        A transformer of the study's X followed by an effect estimator; default :func:`image_model`.
    n_folds : int
        Folds over clusters of the out-of-fold effects and of the nuisance models.
    fold_seeds : sequence of int
        Seeds of the folds; the RATE is reported for each of them.
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
    Analysis
        Results; call its ``write(folder)`` for the report and the map.

    Raises
    ------
    DataError
        If the check of the study finds errors; the message lists them.
    """
    check = study.check()
    check.raise_if_errors()
    model = image_model(study, random_state=random_state) if model is None else model
    LOG.info("cross-fitting %s units of %s", len(study), study.name)
    y, t, groups, weights = study.y, study.treatment, study.groups, study.weights
    roles = {"treatment": t, "groups": groups, "sample_weight": weights, "propensity": study.propensity}
    fits = tuple(
        crossfit_effects(model, study.X, y, **roles, cv=n_folds, random_state=seed, level=level, progress=progress)
        for seed in fold_seeds
    )
    LOG.info("fitting the model on all units")
    study.fit(model)
    latents, covariates, modify = _features(model, study)
    nuisances = crossfit_nuisances(
        np.column_stack([latents, covariates]), y, n_splits=n_folds, random_state=random_state, **roles
    )
    LOG.info("testing heterogeneity")
    scores = dr_scores(y, t, nuisances)
    shared = {"groups": groups, "weights": weights}
    ranked = {**shared, "n_bootstrap": n_bootstrap, "random_state": random_state}
    first = fits[0]
    posterior = effect(model, study.X)
    study, places, places_support = effects_at_places(model, study)
    return Analysis(
        study=study,
        model=model,
        check=check,
        average=_average_table(study, posterior, scores, groups, weights),
        posterior=posterior,
        places=places,
        places_support=places_support,
        nuisances=nuisances,
        crossfit=fits,
        autoc=tuple(rate(f.tau, scores, folds=f.fold, method="autoc", **ranked) for f in fits),
        qini=tuple(rate(f.tau, scores, folds=f.fold, method="qini", **ranked) for f in fits),
        blp=blp(first.tau, scores, folds=first.fold, **shared),
        gates=gates(first.tau, scores, folds=first.fold, **shared),
        overlap=overlap(nuisances.propensity, t, pd.DataFrame(latents).add_prefix("img"), weights=weights),
        permutation=permutation_test(
            np.column_stack([latents, covariates[:, modify]]),
            y,
            t,
            groups=groups,
            covariates=covariates[:, ~modify] if not modify.all() else None,
            strata=study.strata,
            weights=weights,
            n_permutations=n_permutations,
            random_state=random_state,
        ),
        level=level,
        fold_seeds=tuple(fold_seeds),
    )


def _features(model: Any, study: Any) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Image features; covariates with missing-value indicators, and coordinates; which of the latter two modify."""
    from causalsat.core.inputs import learn_imputation
    from causalsat.encoders.coordinates import PLACE

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


def _average_table(
    study: Any, posterior: EffectPosterior, scores: FloatArray, groups: Any, weights: Any
) -> pd.DataFrame:
    table = average_effects(
        study.y,
        study.treatment,
        covariates=pd.DataFrame(study.X[list(study.covariates)]),
        groups=groups,
        strata=study.strata,
        sample_weight=weights,
    )
    bayes = posterior.ate(weights)
    lower, upper = bayes.interval(0.95)[0]
    table.loc["doubly robust (AIPW)"] = clustered_mean(scores, groups=groups, sample_weight=weights)
    table.loc["model's posterior"] = {"estimate": float(bayes), "se": bayes.sd()[0], "lower": lower, "upper": upper}
    return table
