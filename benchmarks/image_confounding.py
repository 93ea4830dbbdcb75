"""Studies whose images hold the confounder: bias, error and coverage of ImageConfounding, beside EconML and oracles.

A: the level of the red band is the confounder, beside two observed covariates (effect 2). B: the confounder is the
strongest anti-diagonal streak of 2 to 32 pixels (effect 1). C: a satellite study of 200 villages, greener ones
treated more often (effects differ between villages). The oracle is the same estimator given the confounder itself;
it and EconML see every fourth draw.

    python benchmarks/image_confounding.py [--draws-a 100] [--sets 2] [--draws-b 8] [--draws-c 4]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

import causalsat
from causalsat import ImageConfounding, PyramidFeatures, RandomConvFeatures
from causalsat.simulate import colour_confounding, kernel_confounding, satellite_trial
from causalsat.simulate.confounded_images import natural_images, redraw

WIDTHS = (2, 4, 8, 16, 32)
PEERS_EVERY = 4
COVARIATES = ["age", "female", "schooling", "household_size", "assets", "road_km"]
Row = dict[str, float]


class AsTheyAre(TransformerMixin, BaseEstimator):
    """Features that were computed before, handed over as images of one row of pixels."""

    def fit(self, X: Any, y: Any = None) -> AsTheyAre:
        """Learn nothing."""
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        """Pixels as features."""
        return np.asarray(X, dtype=float).reshape(len(X), -1)


def as_images(features: Any) -> Any:
    """Features (n, d) as images (n, 1, 1, d)."""
    return np.asarray(features, dtype=np.float32)[:, None, None, :]


def judge(est: ImageConfounding, truth: float) -> Row:
    """Errors of the estimates, whether the 95 % interval covers the truth, what was held out."""
    return {
        "naive": est.naive_.estimate - truth,
        "hajek": est.hajek_.estimate - truth,
        "aipw": est.ate_.estimate - truth,
        "covers": float(est.ate_.lower < truth < est.ate_.upper),
        "r2": est.held_out_.outcome_r2,
        "loss": est.held_out_.log_loss,
    }


def econml_error(features: Any, data: Any) -> Row:
    """EconML's LinearDRLearner on the same features with the learners that a user would take."""
    from econml.dr import LinearDRLearner
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learner = LinearDRLearner(
        model_propensity=make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        model_regression=make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 15))),
        min_propensity=0.01,
        cv=5,
        random_state=0,
    )
    learner.fit(data.outcome, data.treatment, X=None, W=features)
    found = learner.intercept__inference(T=1)
    lower, upper = (float(np.ravel(v)[0]) for v in found.conf_int(alpha=0.05))
    error = float(np.ravel(found.point_estimate)[0]) - data.effect
    return {"econml": error, "econml covers": float(lower < data.effect < upper)}


def oracle(confounder: Any, covariates: Any, data: Any) -> Row:
    """The same estimator with the confounder itself for an image."""
    est = ImageConfounding(AsTheyAre(), n_latents=1)
    est.fit(as_images(np.column_stack([confounder, covariates])), data.outcome, treatment=data.treatment)
    row = judge(est, data.effect)
    return {"oracle": row["aipw"], "oracle covers": row["covers"]}


def colours(draws: int, n_filters: int = 2) -> list[Row]:
    """Benchmark A; every draw has images of its own."""
    rows = []
    for seed in range(draws):
        data = colour_confounding(seed=seed)
        chips, covariates = data.chips(), np.column_stack(list(data.covariates.values()))
        start = time.process_time()
        est = ImageConfounding(PyramidFeatures(n_filters), covariates=["x1", "x2"])
        est.fit(chips, data.outcome, treatment=data.treatment)
        row = {**judge(est, data.effect), "cpu": time.process_time() - start}
        if seed % PEERS_EVERY == 0:
            features = np.hstack([est.encoder_.transform(chips), covariates])
            row |= {**oracle(data.confounder, covariates, data), **econml_error(features, data)}
        rows.append(row)
    return rows


def streaks(sets: int, draws: int) -> dict[int, list[Row]]:
    """Benchmark B: treatments and outcomes drawn anew on the same images, which are encoded once (without labels)."""
    found: dict[int, list[Row]] = {width: [] for width in WIDTHS}
    for images_seed in range(sets):
        images = natural_images(500, seed=images_seed)
        start = time.process_time()
        features = PyramidFeatures().fit_transform(images)
        encoding = time.process_time() - start
        for width in WIDTHS:
            base = kernel_confounding(width, images=images)
            for draw in range(draws):
                data = redraw(base, 1000 * images_seed + draw)
                start = time.process_time()
                est = ImageConfounding(AsTheyAre()).fit(as_images(features), data.outcome, treatment=data.treatment)
                row = {**judge(est, 1.0), "cpu": encoding + time.process_time() - start}
                if draw % PEERS_EVERY == 0:
                    nothing = np.empty((len(images), 0))
                    row |= {**oracle(data.confounder, nothing, data), **econml_error(features, data)}
                found[width].append(row)
    return found


def encoders(seed: int = 100) -> list[tuple[str, float, float, float]]:
    """Held-out losses and error of two encoders on one set of images, mean over the widths."""
    images = natural_images(500, seed=seed)
    chosen = {
        "PyramidFeatures(): maxima, minima, means": PyramidFeatures(),
        "RandomConvFeatures(64, stride=2, statistics=True): means": RandomConvFeatures(64, stride=2, statistics=True),
    }
    rows = []
    for name, encoder in chosen.items():
        features = encoder.fit_transform(images)
        found = []
        for width in WIDTHS:
            data = kernel_confounding(width, images=images, seed=seed)
            est = ImageConfounding(AsTheyAre()).fit(as_images(features), data.outcome, treatment=data.treatment)
            row = judge(est, 1.0)
            found.append([row["r2"], row["loss"], row["aipw"] / row["naive"]])
        rows.append((name, *np.mean(found, axis=0)))
    return rows


def villages(draws: int, landscapes: int = 5) -> list[Row]:
    """Benchmark C: assignment, village effects and noise drawn anew on each of some landscapes."""
    rows = []
    for seed in range(landscapes):
        trial = satellite_trial("confounded", n_sites=200, seed=seed)
        imagery = causalsat.open_imagery(trial.imagery)
        for draw in range(draws):
            units = trial.draw_outcomes(100 * seed + draw).units
            start = time.process_time()
            est = ImageConfounding(imagery=imagery, size_m=trial.truth["chip_m"], covariates=COVARIATES)
            est.fit(units, units["outcome"], treatment="treatment", groups="site")
            rows.append({**judge(est, float(units["tau"].mean())), "cpu": time.process_time() - start})
    return rows


def line(label: str, rows: list[Row]) -> str:
    """One row of the table."""
    n = len(rows)

    def values(key: str) -> Any:
        return np.array([row[key] for row in rows if key in row])

    def rmse(key: str) -> float:
        return float(np.sqrt(np.mean(values(key) ** 2)))

    def covers(key: str) -> str:
        share, n = values(key).mean(), len(values(key))
        return f"{100 * share:.0f} ({100 * np.sqrt(share * (1 - share) / n):.1f}), n {n}"

    cells = [label, str(n), f"{values('naive').mean():.3f}", f"{values('hajek').mean():.3f}"]
    cells += [f"{values('aipw').mean():.3f}", f"{rmse('aipw') / rmse('naive'):.3f}", covers("covers")]
    cells += [f"{values('r2').mean():.2f}"]
    cells += [f"{values('oracle').mean():.3f}; {covers('oracle covers')}" if len(values("oracle")) else ""]
    if len(values("econml")):
        cells += [f"{values('econml').mean():.3f}; {rmse('econml') / rmse('naive'):.3f}; {covers('econml covers')}"]
    else:
        cells += [""]
    return "| " + " | ".join([*cells, f"{values('cpu').mean():.1f}"]) + " |"


def to_markdown(a: list[Row], full: list[Row], b: dict[int, list[Row]], c: list[Row], kinds: list[Any]) -> str:
    """Two tables: the estimates, and the encoders by held-out loss."""
    names = ["", "draws", "naive bias", "Hajek bias", "AIPW bias", "AIPW RMSE / naive", "covers, % (s.e.)"]
    names += ["outcome R2, held out", "oracle bias; covers", "EconML bias; RMSE / naive; covers", "CPU s a fit"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|", line("A, red level, 2 filters", a)]
    if full:
        lines.append(line("A, the default's 8 filters", full))
    lines += [line(f"B, streak of {width} px", rows) for width, rows in b.items()]
    lines.append(line("C, 200 villages", c))
    lines += [
        "",
        "| encoder, B, mean of the widths | outcome R2 | log loss | AIPW error / naive |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {r2:.3f} | {loss:.3f} | {ratio:.3f} |" for name, r2, loss, ratio in kinds]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws-a", type=int, default=100)
    parser.add_argument("--draws-full", type=int, default=6, help="of A with the default encoder")
    parser.add_argument("--sets", type=int, default=2, help="sets of 500 images in B")
    parser.add_argument("--draws-b", type=int, default=8, help="of treatment and outcome on each set and width")
    parser.add_argument("--draws-c", type=int, default=4, help="on each of 5 landscapes")
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clipped propensities; what EconML says of its inputs
        parts = (
            colours(options.draws_a),
            colours(options.draws_full, 8),
            streaks(options.sets, options.draws_b),
            villages(options.draws_c),
            encoders(),
        )
    print(to_markdown(*parts))


if __name__ == "__main__":
    main()
