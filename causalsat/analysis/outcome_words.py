"""What a report says of the outcome: who is missing, what a model predicted, what was known before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["outcome_metrics", "outcome_words"]


def outcome_words(analysis: Any) -> Iterator[str]:
    """Paragraphs on missing, predicted and baseline outcomes; none where there is nothing to say."""
    study = analysis.study
    if analysis.response is not None:
        bounds, response = analysis.lee, analysis.response
        control, treated = bounds.response
        own = np.where(study.treatment > 0, response.p1, response.p0)[response.observed]
        yield (
            f"The outcome is missing for {bounds.n - bounds.n_observed:,} of {bounds.n:,} units; "
            f"{100 * treated:.1f} % of treated and {100 * control:.1f} % of control units responded. Estimates "
            "weight respondents by the inverse of their probability of response given arm, image features and "
            f"covariates (from {own.min():.2f} to {own.max():.2f}, out of fold). They are right if nothing else "
            "that moves the outcome decides who responds. Without that assumption, the average effect on units that "
            f"respond in either arm is between {bounds.lower:.3f} and {bounds.upper:.3f} if the treatment moves "
            f"response in one direction (Lee 2009; {100 * bounds.level:.0f} % interval {bounds.interval[0]:.3f} to "
            f"{bounds.interval[1]:.3f}, {100 * bounds.trimmed_share:.1f} % of the outcomes of the "
            f"{_arm(bounds.trimmed_arm)} trimmed)."
        )
        if analysis.permutation is not None:
            yield (
                "The permutation test takes respondents with these weights. It is approximate where response differs "
                "between the arms."
            )
    if analysis.predicted is not None:
        found = analysis.predicted
        plain = found.uncorrected
        yield (
            f"A model predicted the outcome. Every estimate but the last row uses the outcome corrected by the "
            f"{found.n_labelled:,} measured units (prediction-powered inference), which is right if these were "
            f"drawn at random. The predictions as they are give {plain.estimate:.3f}; the measured units alone give "
            f"{found.labelled_only.estimate:.3f} with standard error {found.labelled_only.se:.3f}."
        )
    elif study.outcome_predicted:
        yield (
            "A model predicted the outcome, and nothing corrects it: predictions shrink towards their mean, and "
            "these effects with them."
        )
    if "baseline_outcome" in study.roles:
        yield (
            f"The baseline outcome {study.roles['baseline_outcome']} is adjusted for as a covariate (ANCOVA), where "
            "covariates are."
        )


def _arm(name: str) -> str:
    return {"treated": "treated", "control": "control units"}.get(name, "arms")


def outcome_metrics(analysis: Any) -> dict[str, Any]:
    """The same as numbers, nested by subject."""
    values: dict[str, Any] = {}
    if analysis.response is not None:
        bounds = analysis.lee
        values["response"] = {
            "control": bounds.response[0],
            "treated": bounds.response[1],
            "clipped": int(analysis.response.clipped.sum()),
        }
        values["lee_bounds"] = {
            "lower": bounds.lower,
            "lower_se": bounds.lower_se,
            "upper": bounds.upper,
            "upper_se": bounds.upper_se,
            "interval_lower": bounds.interval[0],
            "interval_upper": bounds.interval[1],
            "trimmed_share": bounds.trimmed_share,
        }
    if analysis.predicted is not None:
        found = analysis.predicted
        values["predicted_outcome"] = {
            "corrected": found.estimate,
            "uncorrected": found.uncorrected.estimate,
            "labelled_only": found.labelled_only.estimate,
            "n_labelled": found.n_labelled,
            "lambda_control": found.lam[0],
            "lambda_treated": found.lam[1],
        }
    return values
