"""An analysis as a few lines, as the output of a notebook's cell, and as one figure."""

from __future__ import annotations

from typing import Any

from causalsat import plots
from causalsat.core.names import with_unit
from causalsat.core.notebook import fragment, frame_table, paragraph
from causalsat.core.svg import intervals_svg

MORE = (
    "print(analysis) shows the model's coefficients; .gates, .blp, .autoc[0], .overlap and .permutation are the "
    "tests; .plot() draws them, .write(folder) makes report and map."
)

AVERAGES = "Average effect by each method with its 95 % interval"

__all__ = ["analysis_html", "analysis_text", "plot_analysis"]


def analysis_text(analysis: Any) -> str:
    """The study, the average effects and the verdict; fewer than 20 lines."""
    table = analysis.to_dataframe()[["estimate", "se", "lower", "upper"]]
    return "\n".join(
        [
            f"Analysis of {analysis.study!r}",
            f"Effect on {_outcome(analysis.study)}:",
            table.to_string(float_format=lambda value: f"{value:.4g}"),
            *([] if analysis.compliance is None else [repr(analysis.compliance)]),
            analysis.verdict(),
            MORE,
        ]
    )


def analysis_html(analysis: Any) -> str:
    """Average effects with their intervals, the verdict, the targeting curve and the groups' effects."""
    study, table = analysis.study, analysis.to_dataframe()
    drawn = (list(table.index), table["estimate"], table["lower"], table["upper"])
    return fragment(
        paragraph(f"{study.name}: {', '.join(study.facts())}", strong=True),
        frame_table(table, f"Average effects on {_outcome(study)}, with 95 % intervals"),
        intervals_svg(*drawn, title=AVERAGES, axis=f"effect on {_outcome(study)}"),
        "" if analysis.compliance is None else analysis.compliance._repr_html_(),
        paragraph(analysis.verdict(), strong=True),
        analysis.autoc[0]._picture(),
        frame_table(analysis.gates.to_dataframe(), "Effect of the groups from the lowest to the highest predicted"),
        analysis.gates._picture(),
        paragraph(MORE),
    )


def plot_analysis(analysis: Any) -> Any:
    """Average effects, targeting curve, groups' effects and units' effects on four axes of one figure."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    units, title = analysis.study.outcome_unit, f"Average effect on {analysis.study.outcome_label}"
    plots.plot_ate(analysis.average, units=units, title=title, ax=axes[0, 0])
    plots.plot_toc(analysis.autoc[0], units=units, ax=axes[0, 1])
    plots.plot_gates(analysis.gates, units=units, ax=axes[1, 0])
    plots.plot_effects(analysis.posterior, level=analysis.level, units=units, ax=axes[1, 1])
    return axes


def _outcome(study: Any) -> str:
    return with_unit(study.outcome_label, study.outcome_unit)
