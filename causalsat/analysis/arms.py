"""The analysis of a study with several arms: joint averages, tests of each pair, a joint model, report and maps."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalsat.analysis.folder import claim, finish
from causalsat.analysis.outputs import page_is_possible
from causalsat.base import effect, final_estimator
from causalsat.core.names import with_unit
from causalsat.core.tables import Tabular
from causalsat.evaluation import ArmComparison, BestArm
from causalsat.mapping import map_effects
from causalsat.persistence import save
from causalsat.posterior import EffectPosterior
from causalsat.report.page import Figure, Page, Section, Table, flat_metrics, write_metrics
from causalsat.version import __version__

__all__ = ["ArmsAnalysis", "pairs_of"]


@dataclass(frozen=True)
class ArmsAnalysis(Tabular):
    """What :func:`causalsat.analyse` found of a study with several arms.

    Attributes
    ----------
    study : Study
        What was analysed.
    model : estimator or Pipeline
        Fitted to all units and arms; its ``effect`` takes labels of arms.
    check : StudyReport
        Findings about the data.
    average : DataFrame
        Average effect of every arm against the control and against each other (doubly robust, 95 %).
    comparison : ArmComparison
        The same with the joint covariance and a test that all arms are alike.
    pairs : mapping of (treatment, baseline) to Analysis
        Tests of heterogeneity, targeting curves and groups of each pair, on the units of its two arms.
    best : BestArm
        Which arm is best for each unit, with its probability.
    level : float
        Level of the intervals of single effects.
    """

    study: Any
    model: Any
    check: Any
    average: pd.DataFrame
    comparison: ArmComparison
    pairs: Mapping[tuple[str, str], Any]
    best: BestArm
    level: float = 0.9

    def effect(self, treatment: str, baseline: str | None = None) -> EffectPosterior:
        """Effects of the units of one arm against another, by default against control."""
        other = self.comparison.arms[0] if baseline is None else baseline
        return effect(self.model, self.study.X, treatment=treatment, baseline=other)

    def to_dataframe(self) -> pd.DataFrame:
        """Average effects of every pair of arms."""
        return self.average[["estimate", "se", "lower", "upper", "p_value"]]

    def tests(self) -> pd.DataFrame:
        """Heterogeneity of each pair: permutation test, AUTOC and calibration slope."""
        rows = {
            pair: {
                "permutation_p": np.nan if found.permutation is None else found.permutation.p_value,
                "autoc": found.autoc[0].estimate,
                "autoc_se": found.autoc[0].se,
                "slope": found.blp.slope,
                "slope_se": found.blp.slope_se,
            }
            for pair, found in self.pairs.items()
        }
        return pd.DataFrame(rows).T.rename_axis(["treatment", "baseline"])

    def verdict(self) -> str:
        """What the test of each pair says."""
        return "\n".join(f"{a} against {b}: {found.verdict()}" for (a, b), found in self.pairs.items())

    def _title(self) -> str:
        return f"Analysis of {self.study!r}"

    def _notes(self) -> list[str]:
        return [*self.comparison._notes(), *self.best._notes(), self.verdict()]

    def __str__(self) -> str:
        """Averages, tests and the estimator's own summary."""
        _, estimator = final_estimator(self.model)
        return f"{self!r}\n\n{estimator.summary()}"

    def metrics(self) -> dict[str, Any]:
        """Every figure of the report under flat keys."""
        pairs = {
            _slug(f"{a} against {b}"): {**row.drop("df").to_dict(), **self.tests().loc[(a, b)].to_dict()}
            for (a, b), (_, row) in zip(list(self.average.index), self.average.iterrows(), strict=True)
        }
        statistic, q, df, p = self.comparison.wald()
        best = pd.Series(self.best.arm).value_counts(normalize=True)
        return flat_metrics(
            {
                "study": {"name": self.study.name, "units": len(self.study), "arms": list(self.comparison.arms)},
                "ate": pairs,
                "all_arms_alike": {"F": statistic, "df1": q, "df2": df, "p_value": p},
                "best_share": {_slug(name): float(best.get(name, 0.0)) for name in self.comparison.arms},
            }
        )

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
        """Write report, a map of each arm against control, metrics and the fitted model to a folder.

        Parameters
        ----------
        folder : path-like
            Made if it does not exist. The outputs of an earlier run of the same study are replaced.
        region, resolution, min_valid, progress
            Passed to :func:`causalsat.map_effects`.
        overwrite : bool
            Replace the outputs of another study.

        Returns
        -------
        list of Path
            ``report.html``, the same as ``report.md`` and ``report.tex``, ``effects_<arm>.tif`` and its picture and
            page for each arm, ``metrics.json``, ``model.safetensors``.

        Raises
        ------
        OutputError
            If the folder holds the outputs of another study, or cannot be written.
        """
        target, study = Path(folder), self.study
        slugs = {arm: _slug(arm) for arm in self.comparison.arms[1:]}
        names = ["report.html", "report.md", "report.tex", "metrics.json", "model.safetensors"]
        names += [f"effects_{slug}.{end}" for slug in slugs.values() for end in ("tif", "png", "html")]
        earlier = claim(target, study, names, overwrite=overwrite)
        save(self.model, target / "model.safetensors")
        maps = {}
        for arm, slug in slugs.items():
            tests = self.pairs[(arm, self.comparison.arms[0])]
            maps[arm] = map_effects(
                self.model,
                next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery,
                region,
                resolution,
                target / f"effects_{slug}.tif",
                level=self.level,
                min_valid=min_valid,
                progress=progress,
                overwrite=True,
                png=target / f"effects_{slug}.png",
                html=target / f"effects_{slug}.html" if page_is_possible() else False,
                sites=study.sites(),
                title=f"{arm} against {self.comparison.arms[0]}: effect on {study.outcome_label}",
                units=study.outcome_unit,
                heterogeneity_p=None if tests.permutation is None else tests.permutation.p_value,
                citation=study.citation,
                treatment=arm,
            )
        write_metrics(target / "metrics.json", self.metrics())
        page = self._page(maps)
        pages = [page.write(target / f"report.{ending}") for ending in ("html", "md", "tex")]
        drawn = [p for found in maps.values() for p in (found.path, found.png, found.html) if p is not None]
        paths = [*pages, *drawn, target / "metrics.json", target / "model.safetensors"]
        finish(target, study, {path.name for path in paths}, earlier)
        return paths

    def _page(self, maps: Mapping[str, Any]) -> Page:
        study, control = self.study, self.comparison.arms[0]
        lead = [
            f"{arm} changes {study.outcome_label} by {row.estimate:.3f} against {base} (95 % interval "
            f"{row.lower:.3f} to {row.upper:.3f})."
            for (arm, base), (_, row) in zip(list(self.average.index), self.average.iterrows(), strict=True)
            if base == control
        ]
        footer = [
            f"Made by causalsat {__version__} on {date.today():%Y-%m-%d}. Every figure is in metrics.json.",
            *(text for text in (study.citation, study.licence) if text),
        ]
        return Page(f"Several arms: {study.name}", lead, list(self._sections(maps)), footer)

    def _sections(self, maps: Mapping[str, Any]) -> Iterator[Section]:
        study = self.study
        yield Section(
            "Study",
            [text for text in (study.description, ", ".join(study.facts()) + ".") if text],
            text=str(self.check),
        )
        yield Section(
            "Average effects",
            [
                f"Effects on {with_unit(study.outcome_label, study.outcome_unit)}, jointly estimated by doubly "
                "robust scores of every arm (AIPW), with one covariance clustered on the unit of assignment. "
                "p-values are "
                "not adjusted for the number of pairs.",
                *self.comparison._notes(),
            ],
            tables=[Table.of(_named(self.average.drop(columns="df")), "Every pair, 95 % intervals.")],
        )
        yield Section(
            "Does the effect vary?",
            [self.verdict()],
            tables=[Table.of(_named(self.tests()), "Tests of heterogeneity of every pair.")],
        )
        share, sure = pd.Series(self.best.arm).value_counts(normalize=True), self.best.probabilities
        rows = pd.DataFrame(
            {
                "share of units": [float(share.get(arm, 0.0)) for arm in self.comparison.arms],
                "mean probability": [float(sure[arm].mean()) for arm in self.comparison.arms],
            },
            index=pd.Index(self.comparison.arms, name="arm"),
        )
        yield Section(
            "Which arm where",
            ["The arm with the best expected outcome at each unit's place. Costs do not enter."],
            tables=[Table.of(rows, "How often each arm is best.")],
        )
        for arm, found in maps.items():
            if found.png is not None:
                caption = f"Effect of {arm} against {self.comparison.arms[0]}."
                yield Section(f"Map: {arm}", [found.note] if found.note else [], figures=[Figure(found.png, caption)])


def pairs_of(study: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    """Names and study of each pair of arms: every arm against control, then against each other."""
    names, t = study.arms, study.treatment
    column = study.units[study.roles["treatment"]]
    raw = {code: column[t == code].iloc[0] for code in names}
    codes = list(names)
    pairs = [(a, codes[0]) for a in codes[1:]] + [(b, a) for a, b in combinations(codes[1:], 2)]
    for a, b in pairs:
        part = study.subset(np.isin(t, (a, b)))
        yield (names[a], names[b]), part.replace(treated=raw[a], control=raw[b], name=f"{study.name}: {names[a]}")


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis([f"{a} against {b}" for a, b in table.index], axis=0)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_") or "arm"
