"""The outputs of an analysis: figures, map, metrics, the report page and the fitted model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalsat import plots
from causalsat.analysis.folder import NAMES, claim, finish
from causalsat.analysis.modifiers import beside_images
from causalsat.analysis.outcome_words import outcome_metrics, outcome_words
from causalsat.base import final_estimator
from causalsat.core.files import whole_file, writing
from causalsat.core.names import with_unit
from causalsat.core.optional import is_installed
from causalsat.core.tables import write_csv
from causalsat.core.warn import warn
from causalsat.exceptions import IgnoredWarning, MapWarning
from causalsat.mapping import map_effects
from causalsat.mapping.plan import plan_map
from causalsat.persistence import save
from causalsat.report.page import Figure, Page, Section, Table, write_metrics
from causalsat.version import __version__

__all__ = ["collect_metrics", "page_is_possible", "write_outputs"]

LOG = logging.getLogger(__name__)
MANY_CELLS = 250_000  # from which a map's plan is measured and said
LONG_HOURS = 0.25
NO_PAGE = "the interactive map (map.html) is left out, because bokeh is not installed: pip install 'causalsat[maps]'"


def write_outputs(
    analysis: Any,
    folder: Path,
    *,
    region: Any,
    resolution: float | None,
    min_valid: float | None,
    progress: bool,
    overwrite: bool,
) -> list[Path]:
    """Write everything; see :meth:`causalsat.analysis.Analysis.write`."""
    study, interactive = analysis.study, page_is_possible()
    absent = {"map.html"} if not interactive else set()
    absent |= {"places.csv"} if analysis.places is None else set()
    earlier = claim(folder, study, [name for name in NAMES if name not in absent], overwrite=overwrite)
    save(analysis.model, folder / "model.safetensors")
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    say_plan(analysis.model, imagery, region, resolution, min_valid)
    mapped = map_effects(
        analysis.model,
        imagery,
        region,
        resolution,
        folder / "effects.tif",
        level=analysis.level,
        min_valid=min_valid,
        progress=progress,
        overwrite=True,
        png=folder / "effects.png",
        html=folder / "map.html" if interactive else False,
        sites=study.sites(),
        title=f"Effect of treatment{_on_outcome(study)}: {study.name}",
        units=study.outcome_unit,
        heterogeneity_p=None if analysis.permutation is None else analysis.permutation.p_value,
        citation=study.citation,
    )
    figures = _draw(analysis, folder)
    written = [mapped.path, *(p for p in (mapped.png, mapped.html) if p is not None), folder / "toc.png"]
    if analysis.places is not None:
        write_csv(_places_table(analysis), folder / "places.csv")
        written.append(folder / "places.csv")
    write_metrics(folder / "metrics.json", collect_metrics(analysis, mapped))
    page = _page(analysis, mapped, figures)
    pages = [page.write(folder / f"report.{ending}") for ending in ("html", "md", "tex")]
    paths = [*pages, *written, folder / "metrics.json", folder / "model.safetensors"]
    finish(folder, study, {path.name for path in (*paths, *figures.values())}, earlier)
    return paths


def say_plan(model: Any, imagery: Any, region: Any, resolution: float | None, min_valid: float | None) -> None:
    """Measure a tile of a map of many cells, and say what the map takes before it begins.

    Warns
    -----
    MapWarning
        Where it takes more than a quarter of an hour; names a resolution that takes less.
    """
    if resolution is None:
        return  # about 250,000 cells
    plan = plan_map(model, imagery, region, resolution, min_valid=min_valid, measure=False)
    if plan.n_cells <= MANY_CELLS:
        return
    plan = plan_map(model, imagery, region, resolution, min_valid=min_valid)
    LOG.info("the map: %s", plan)
    if plan.hours > LONG_HOURS:
        coarser = resolution * (plan.n_cells / MANY_CELLS) ** 0.5
        warn(
            f"a map of {plan.n_cells:,} cells of {plan.resolution_m:g} m takes about {plan.hours:.1f} hours; without "
            f"resolution= it has about {MANY_CELLS:,} cells, of {coarser:,.0f} m; a region= is mapped sooner",
            MapWarning,
        )


def page_is_possible() -> bool:
    """Whether the interactive map can be drawn; says so, before the long work, where it cannot.

    Warns
    -----
    IgnoredWarning
        Where bokeh is not installed.
    """
    if is_installed("bokeh"):
        return True
    warn(NO_PAGE, IgnoredWarning)
    return False


# ---------------------------------------------------------------------- figures
def _draw(analysis: Any, folder: Path) -> dict[str, Path]:
    import matplotlib.pyplot as plt

    units, on = analysis.study.outcome_unit, _on_outcome(analysis.study)
    pictures = {
        "study": lambda: plots.plot_study(analysis.study),
        "ate": lambda: plots.plot_ate(analysis.average, units=units, title=f"Average effect{on}"),
        "toc": lambda: plots.plot_toc(analysis.autoc[0], units=units),
        "gates": lambda: plots.plot_gates(analysis.gates, units=units),
        "overlap": lambda: plots.plot_overlap(analysis.nuisances.propensity, analysis.study.treatment),
        "units": lambda: plots.plot_effects(analysis.posterior, level=analysis.level, units=units),
    }
    paths = {}
    for name, draw in pictures.items():
        figure: Any = draw().figure
        paths[name] = folder / f"{name}.png"
        shape = "tight" if name == "study" else None  # a map has a shape of its own
        with writing(paths[name]), whole_file(paths[name]) as temporary:
            figure.savefig(temporary, dpi=130, bbox_inches=shape, format="png")
        plt.close(figure)
    return paths


def _on_outcome(study: Any) -> str:
    """Words for a title, where the outcome has a name beside that of its column."""
    return f" on {study.outcome_label}" if study.outcome_label != study.roles["outcome"] else ""


def _places_table(analysis: Any) -> pd.DataFrame:
    assert analysis.places is not None  # only called with places
    points = analysis.study.places.geometry.representative_point().to_crs("EPSG:4326")
    table = analysis.places.to_dataframe(analysis.level)
    table.insert(0, "lat", points.y.to_numpy())
    table.insert(0, "lon", points.x.to_numpy())
    return table.assign(support=analysis.places_support)


# ---------------------------------------------------------------------- figures as numbers
def collect_metrics(analysis: Any, mapped: Any = None) -> dict[str, Any]:
    """Every figure of the report, nested by subject; :func:`write_metrics` makes the keys flat."""
    study, first = analysis.study, analysis.autoc[0]
    _, estimator = final_estimator(analysis.model)
    tau = analysis.posterior.mean()
    values: dict[str, Any] = {
        "version": __version__,
        "study": {
            "name": study.name,
            "n_units": study.n_units,
            "n_clusters": study.n_clusters,
            "n_treated": int((study.treatment == 1).sum()),
            "n_strata": None if study.strata is None else int(pd.Series(study.strata).nunique()),
            "randomised": bool(study.randomised),
            "n_places": 0 if study.places is None else len(study.places),
            "check_errors": len(analysis.check.errors),
            "check_warnings": len(analysis.check.warnings),
        },
        "ate": {
            _key(str(name)): {c: row[c] for c in ("estimate", "se", "lower", "upper")}
            for name, row in analysis.average.iterrows()
        },
        "effect": {
            "mean": tau.mean(),
            "sd_of_means": tau.std(),
            "median_posterior_sd": float(np.median(analysis.posterior.sd())),
            "share_interval_above_zero": float((analysis.posterior.interval(analysis.level)[:, 0] > 0).mean()),
            "level": analysis.level,
        },
        "autoc": {"estimate": first.estimate, "se": first.se, "ratio": first.ratio, "p_value": first.p_value},
        "autoc_ratios": [r.ratio for r in analysis.autoc],
        "qini": {"estimate": analysis.qini[0].estimate, "se": analysis.qini[0].se, "ratio": analysis.qini[0].ratio},
        "qini_ratios": [r.ratio for r in analysis.qini],
        "blp": {"slope": analysis.blp.slope, "slope_se": analysis.blp.slope_se, "p_value": analysis.blp.p_value},
        "gates": {
            f"group{i + 1}": {"estimate": e, "se": s, "predicted": p}
            for i, (e, s, p) in enumerate(
                zip(analysis.gates.estimate, analysis.gates.se, analysis.gates.predicted, strict=True)
            )
        },
        "gates_difference": {
            "estimate": analysis.gates.difference,
            "se": analysis.gates.difference_se,
            "p_value": analysis.gates.difference_p_value,
        },
        "propensity": {
            "min": float(analysis.nuisances.propensity.min()),
            "max": float(analysis.nuisances.propensity.max()),
            "clipped": int(analysis.nuisances.clipped.sum()),
        },
        "model": {k: v for k, v in estimator._diagnostics().items() if isinstance(v, int | float | str | bool)},
    }
    return values | _present_metrics(analysis, mapped)


def _present_metrics(analysis: Any, mapped: Any) -> dict[str, Any]:
    """Figures of what not every analysis has: permutation test, sensitivity, further places, a map."""
    values: dict[str, Any] = {}
    if analysis.permutation is not None:
        values["permutation"] = {
            "statistic": analysis.permutation.statistic,
            "p_value": analysis.permutation.p_value,
            "n_permutations": len(analysis.permutation.null),
        }
    if analysis.explained_heterogeneity is not None:
        found = vars(analysis.explained_heterogeneity)
        numbers = ("estimate", "lower", "upper", "sd", "sd_lower", "sd_upper", "explained_sd")
        values["explained_heterogeneity"] = {name: found[name] for name in numbers if np.isfinite(found[name])}
    if analysis.sensitivity is not None:
        values["sensitivity"] = {
            "estimate": analysis.sensitivity.estimate,
            "robustness_value": analysis.sensitivity.robustness_value(),
            "robustness_value_95": analysis.sensitivity.robustness_value(alpha=0.05),
        }
    if analysis.compliance is not None:
        found = analysis.compliance
        values["compliance"] = {
            **{name: vars(getattr(found, name)) for name in ("itt", "first_stage", "complier")},
            "effective_f": found.effective_f,
            "anderson_rubin": {"lower": found.anderson_rubin.lower, "upper": found.anderson_rubin.upper},
        }
    if analysis.places is not None:
        values["places"] = {
            "mean": float(analysis.places.ate()),
            "min": analysis.places.mean().min(),
            "max": analysis.places.mean().max(),
            "share_low_support": float((np.asarray(analysis.places_support) < 0.05).mean()),
        }
    values |= outcome_metrics(analysis)
    if mapped is not None:
        values["map"] = {"cells": mapped.n_mapped, "resolution_m": mapped.resolution_m, "height": mapped.shape[0]}
        values["map"] |= {"width": mapped.shape[1]}
    return values


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.replace("'s", "").lower()).strip("_").replace("__", "_")


# ---------------------------------------------------------------------- the page
def _page(analysis: Any, mapped: Any, figures: dict[str, Path]) -> Page:
    study = analysis.study
    average = analysis.average.loc[analysis.headline]
    unit = f" {study.outcome_unit}" if study.outcome_unit else ""
    if study.randomised:
        said = f"On average the treatment changes {study.outcome_label} by {average.estimate:.3f}{unit}"
        method = "difference in means within strata" if study.strata is not None else "difference in means"
        if analysis.predicted is not None:
            method = f"predictions corrected by the measured outcomes of {analysis.predicted.n_labelled:,} units"
        elif analysis.response is not None:
            method = "doubly robust, with respondents weighted by the inverse probability of response"
    else:
        said = (
            "This is an observational study: treatment was not randomised. Adjusted for images and covariates, "
            f"the treatment goes with a change of {study.outcome_label} by {average.estimate:.3f}{unit}"
        )
        method = "doubly robust; an effect only if images and covariates hold every confounder"
    lead = [f"{said} (95 % interval {average.lower:.3f} to {average.upper:.3f}; {method}).", analysis.verdict()]
    footer = [
        f"Made by causalsat {__version__} on {date.today():%Y-%m-%d}. Every figure of this page is in metrics.json.",
        *(text for text in (study.citation, study.licence) if text),
    ]
    return Page(f"Effect map: {study.name}", lead, list(_sections(analysis, mapped, figures)), footer)


def _sections(analysis: Any, mapped: Any, figures: dict[str, Path]) -> Iterator[Section]:
    study = analysis.study
    level = f"{100 * analysis.level:.0f} %"
    yield Section(
        "Study",
        [text for text in (study.description, ", ".join(study.facts()) + ".") if text],
        figures=[Figure(figures["study"], "Map of the study's sites over the imagery.", "Where the units are.")],
        text=str(analysis.check),
    )
    yield Section(
        "Average effect",
        [
            f"Effect of {study.roles['treatment']} on {with_unit(study.outcome_label, study.outcome_unit)}. "
            "Intervals of 95 %, with bias-reduced standard errors clustered on the unit of assignment, or on the "
            "stratum where strata hold one cluster an arm. Rows with other estimands need not agree.",
            *_design_words(analysis),
            *outcome_words(analysis),
        ],
        tables=[_average_rows(analysis.average), *_sensitivity_rows(analysis)],
        figures=[Figure(figures["ate"], "Average effect by method with 95 % intervals.")],
    )
    if analysis.compliance is not None:
        yield Section(
            "Take-up",
            [
                "The treatment is the assignment, and every other figure is of the intention to treat. The effect on "
                "compliers is that of the treatment on those who take it up because they are assigned, if the "
                "assignment matters through take-up only.",
                *analysis.compliance._notes(),
            ],
            tables=[Table.of(analysis.compliance.to_dataframe(), "Take-up and the effect on compliers.")],
        )
    yield _heterogeneity_section(analysis, figures)
    places = analysis.places
    paragraphs = [] if places is None else [_places_words(analysis)]
    shown = "" if mapped.html is None else "; map.html shows them one by one"
    picture = [] if mapped.png is None else [Figure(mapped.png, "Map of the effect.", mapped.note)]
    yield Section(
        "Map",
        [
            f"{mapped.n_mapped:,} cells of {mapped.resolution_m:,.0f} m: effects.tif has the bands cate, sd, lower, "
            f"upper ({level}), prob_positive and support{shown}. Support below 0.05 marks places that look unlike "
            "the trial's, whose effects are extrapolations.",
            *_beside_words(analysis),
            *paragraphs,
        ],
        figures=picture,
    )
    yield Section(
        "Model and diagnostics",
        ["Effects of the units with their intervals, overlap of the arms, and the fitted model."],
        figures=[
            Figure(figures["units"], f"Posterior effects of the units in order, with {level} intervals."),
            Figure(figures["overlap"], "Distribution of the propensity by arm."),
        ],
        text=str(final_estimator(analysis.model)[1].summary()),
    )


def _heterogeneity_section(analysis: Any, figures: dict[str, Path]) -> Section:
    """What the tests of heterogeneity say, and how to read them."""
    return Section(
        "Is the heterogeneity real?",
        [
            analysis.verdict(),
            "Effects are predicted for clusters that the model has not seen. The TOC shows how much larger the "
            "effect is among the units ranked first in their fold than among all; AUTOC is the area under it. The "
            "calibration slope is 1 where predicted differences are right on average and 0 where they are noise. "
            "The standard errors of the slope and of the highest group less the lowest, and the p-values of AUTOC "
            "and QINI, allow for predictions that were cross-fitted. "
            + (
                ""
                if analysis.permutation is None
                else "The permutation test assigns the treatment anew as it was assigned, and decides: the others "
                "are approximations, and where predictions are mostly right conservative ones."
            ),
            *(
                [
                    "A step of the model before its estimator is trained on outcomes: the permutation test and the "
                    "outcome models use image features made without labels."
                ]
                if analysis.label_free
                else []
            ),
        ],
        tables=[
            _test_rows(analysis),
            *_seed_rows(analysis),
            _gates_rows(analysis.gates),
            *_explained_rows(analysis.explained_heterogeneity),
        ],
        figures=[
            Figure(figures["toc"], "Targeting operator characteristic with its interval.", "TOC, first fold seed."),
            Figure(figures["gates"], "Average effect by fifth of the predicted effect.", "GATES by predicted fifth."),
        ],
    )


def _beside_words(analysis: Any) -> Iterator[str]:
    beside = beside_images(analysis.model, analysis.study.covariates)
    if beside.coordinates:
        yield (
            "The effects follow the place's coordinates as well: outside the region of the trial the map continues "
            "a straight trend that nothing there supports."
        )
    if beside.covariates:
        yield (
            f"The effects follow covariates as well ({', '.join(beside.covariates)}), which are unknown outside "
            "the survey: the map has the effect at their means in the trial."
        )


def _places_words(analysis: Any) -> str:
    places, low = analysis.places, float((np.asarray(analysis.places_support) < 0.05).mean())
    assert places is not None
    tau = places.mean()
    return (
        f"places.csv has the effects of the {len(places):,} further places: mean {tau.mean():.3f}, "
        f"from {tau.min():.3f} to {tau.max():.3f}; {100 * low:.0f} % of them have support below 0.05."
    )


def _average_rows(average: pd.DataFrame) -> Table:
    rows = [
        [str(name), *(f"{row[c]:.4f}" for c in ("estimate", "se", "lower", "upper")), str(row["estimand"])]
        for name, row in average.iterrows()
    ]
    columns = ["Method", "Estimate", "Std. error", "Lower", "Upper", "Estimand"]
    return Table(columns, rows, "Average effect, 95 % intervals.")


def _design_words(analysis: Any) -> Iterator[str]:
    """What the design is, and what follows from it."""
    study, design = analysis.study, analysis.study.design
    if not study.randomised:
        yield (
            "Nobody randomised: the propensity is estimated from image features and covariates, and the raw "
            "difference of the arms is no effect. ImageConfounding is made for confounders that images show."
        )
    elif design.strata is not None:
        e = design.probability
        shares = f"from {e.min():.2f} to {e.max():.2f}" if np.ptp(e) > 1e-9 else f"{e[0]:.2f} in each"
        pairs = "; strata with one cluster an arm are clusters as a whole" if design.is_paired else ""
        yield f"Assigned within {int(design.strata.max()) + 1} strata, with treated shares {shares}{pairs}."
    elif design.stated_probability is not None:
        e = design.stated_probability
        yield f"The design states the probability of treatment: {e.min():.2f} to {e.max():.2f}."
    if design.weights is not None:
        yield "Survey weights enter every estimate."


def _sensitivity_rows(analysis: Any) -> Iterator[Table]:
    result = analysis.sensitivity
    if result is None:
        return
    rows = [
        ["Adjusted estimate (partially linear)", f"{result.estimate:.4f}"],
        ["Robustness value: brings the estimate to 0", f"{100 * result.robustness_value():.1f} %"],
        ["Robustness value: brings 0 into the 95 % interval", f"{100 * result.robustness_value(alpha=0.05):.1f} %"],
    ]
    rows += [
        [f"{name}: share explained of treatment, of outcome", f"{100 * d:.1f} %, {100 * y:.1f} %"]
        for name, (d, y) in result.benchmarks.items()
    ]
    caption = "Sensitivity to an unobserved confounder (Cinelli and Hazlett 2020), and what was measured."
    yield Table(["Quantity", "Value"], rows, caption)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 5e-5 else "< 0.0001"


def _test_rows(analysis: Any) -> Table:
    autoc, qini, line = analysis.autoc[0], analysis.qini[0], analysis.blp
    gap = analysis.gates
    rows = [
        ["AUTOC", f"{autoc.estimate:.4f}", f"{autoc.se:.4f}", f"{autoc.ratio:.2f}", _p(autoc.p_value)],
        ["QINI", f"{qini.estimate:.4f}", f"{qini.se:.4f}", f"{qini.ratio:.2f}", _p(qini.p_value)],
        [
            "Calibration slope",
            f"{line.slope:.4f}",
            f"{line.slope_se:.4f}",
            f"{line.slope / line.slope_se:.2f}",
            _p(line.p_value),
        ],
        [
            "Top less bottom fifth",
            f"{gap.difference:.4f}",
            f"{gap.difference_se:.4f}",
            f"{gap.difference / gap.difference_se:.2f}",
            _p(gap.difference_p_value),
        ],
    ]
    if (test := analysis.permutation) is not None:
        rows.append(["Permutation test", f"{test.statistic:.4f}", "", "", _p(test.p_value)])
    return Table(["Test", "Estimate", "Std. error", "Ratio", "p-value"], rows, "Tests of heterogeneity.")


def _seed_rows(analysis: Any) -> Iterator[Table]:
    if len(analysis.autoc) > 1:
        rows = [
            [str(seed), f"{a.ratio:.2f}", f"{q.ratio:.2f}"]
            for seed, a, q in zip(analysis.fold_seeds, analysis.autoc, analysis.qini, strict=True)
        ]
        yield Table(["Fold seed", "AUTOC ratio", "QINI ratio"], rows, "The same with other folds.")


def _explained_rows(found: Any) -> Iterator[Table]:
    if found is None:
        return
    rows = [
        [str(name), *("" if np.isnan(value) else f"{value:.4f}" for value in row)]
        for name, row in zip(found.to_dataframe().index, found.to_dataframe().to_numpy(), strict=True)
    ]
    said = (
        "Share of the effects' variance that the model explains. Intervals of single effects are of the mean effect "
        f"of places that look alike. {'. '.join(found.notes)}."
    )
    yield Table(["Quantity", "Estimate", "Lower", "Upper"], rows, said)


def _gates_rows(found: Any) -> Table:
    rows = [
        [str(i + 1), f"{p:.4f}", f"{e:.4f}", f"{s:.4f}", str(int(n))]
        for i, (p, e, s, n) in enumerate(zip(found.predicted, found.estimate, found.se, found.count, strict=True))
    ]
    return Table(
        ["Fifth", "Predicted", "Estimate", "Std. error", "Units"], rows, "Effect by fifth of predicted effect."
    )
