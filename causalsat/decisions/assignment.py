"""Assignment of villages, stratified and drawn anew until the images are balanced.

Morgan and Rubin (2012), "Rerandomization to improve covariate balance in experiments", Annals of Statistics 40(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.tables import Tabular, write_csv
from causalsat.core.warn import warn
from causalsat.decisions.place_features import by_label, image_features, one_row_a_village, whitened
from causalsat.design import Design, make_design
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError

__all__ = ["Assignment", "RandomisationTest", "assign"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

IMAGES = "images"
MIN_ACCEPTED = 50  # assignments, below which probabilities and tests rest on too few


@dataclass(frozen=True)
class RandomisationTest:
    """A test that nobody has an effect.

    Attributes
    ----------
    estimate : float
        Difference of the arms' means.
    p_value : float
        Two-sided: share of the assignments, the one that was drawn included, with at least that difference.
    n_assignments : int
        Assignments that could have been drawn.
    """

    estimate: float
    p_value: float
    n_assignments: int


@dataclass(frozen=True, eq=False, repr=False)
class Assignment(Tabular):
    """Which villages are treated, with the probability that the design gave each of them.

    Attributes
    ----------
    assignment : Series of int
        1 treated, 0 control, by village.
    probability : Series of float
        Share of the accepted assignments in which a village is treated.
    design : Design
        Assignment, strata and probabilities for :func:`causalsat.evaluation.permutation_test` and the others.
    balance : DataFrame
        A row for each feature: ``difference`` between treated and control means in standard deviations, and its
        standard deviation over assignments, ``sd_before`` without and ``sd_after`` with re-randomisation.
    imbalance, threshold : float
        Mahalanobis distance of the arms, and the largest that is accepted.
    acceptance : float
        Share of the stratified assignments that are accepted.
    accepted : ndarray of bool of shape (k, n)
        The accepted assignments, for randomisation inference.
    table : DataFrame
        The villages with ``assignment``, ``probability`` and, where there are strata, ``stratum``.
    """

    assignment: pd.Series
    probability: pd.Series
    design: Design
    balance: pd.DataFrame
    imbalance: float
    threshold: float
    acceptance: float
    accepted: BoolArray
    table: pd.DataFrame

    def assignments_of(self, villages: Any = None) -> BoolArray:
        """The accepted assignments of people, shape (k, n), by the labels of their villages.

        Examples
        --------
        >>> plan = assign(pd.DataFrame({"size": np.arange(10.0)}), balance_on=["size"], n_draws=1000)
        >>> plan.assignments_of([3, 3, 0]).shape
        (100, 3)
        """
        if villages is None:
            return self.accepted
        labels = np.asarray(villages, dtype=object)
        rows = self.assignment.index.get_indexer(pd.Index(labels))
        if (rows < 0).any():
            raise DataError(
                f"{int((rows < 0).sum())} people of villages that were not assigned, such as {labels[rows < 0][0]!r}",
                expected="labels of the assigned villages",
                todo="use the index of the table of villages",
            )
        return np.asarray(self.accepted[:, rows])

    def test(self, outcome: Any, villages: Any = None) -> RandomisationTest:
        """Test that the treatment has no effect on anybody, by the assignments that could have been drawn.

        The difference of the arms' means, weighted by the villages' probabilities, is compared with that of all
        accepted assignments. The test is exact after re-randomisation, where tests that permute freely are
        conservative. :func:`causalsat.evaluation.permutation_test` with ``assignments=plan.assignments_of(villages)``
        is the same for heterogeneity.

        Parameters
        ----------
        outcome : array of shape (n,)
            Outcomes of the villages in their order, or of people.
        villages : array of shape (n,), optional
            Each person's village.

        Returns
        -------
        RandomisationTest

        Examples
        --------
        >>> frame = pd.DataFrame({"size": np.arange(40.0)})
        >>> plan = assign(frame, balance_on=["size"], seed=1)
        >>> plan.test(frame["size"] + 3.0 * plan.assignment).p_value
        0.001
        """
        y = np.asarray(outcome, dtype=float)
        n = len(self.assignment) if villages is None else len(np.asarray(villages, dtype=object))
        if y.shape != (n,) or not np.isfinite(y).all():
            raise DataError(
                f"outcomes of shape {y.shape}, {int((~np.isfinite(y)).sum())} missing",
                expected=f"{n} finite numbers",
                todo="leave people without an outcome out, with their villages",
            )
        labels = self.assignment.index if villages is None else pd.Index(np.asarray(villages, dtype=object))
        self.assignments_of(labels)  # refuses other villages
        rows = self.assignment.index.get_indexer(labels)
        size = len(self.assignment)
        total = np.bincount(rows, y, size).astype(np.float64)
        count = np.bincount(rows, minlength=size).astype(np.float64)
        drawn, p = self.accepted, self.probability.to_numpy()
        difference = _weighted_difference(drawn, total, count, p)
        own = _weighted_difference(self.assignment.to_numpy(dtype=bool)[None], total, count, p)[0]
        near = 1e-9 * max(float(np.abs(difference).max()), 1e-300)
        return RandomisationTest(own, float((np.abs(difference) >= abs(own) - near).mean()), len(drawn))

    def to_dataframe(self) -> pd.DataFrame:
        """The villages with their assignment and its probability."""
        return self.table

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the table as CSV.

        ``Study.from_file(path, treatment="assignment", propensity="probability", ...)`` reads it with outcomes.
        """
        write_csv(self.table, path)
        return Path(path)

    def _notes(self) -> list[str]:
        n = int(self.assignment.sum())
        before, after = (float((self.balance[name] ** 2).mean()) for name in ("sd_before", "sd_after"))
        return [
            f"{n} of {len(self.assignment)} villages treated. Re-randomised: {self.acceptance:.1%} of assignments "
            f"accepted, which lowers the mean variance of the features' differences by {1 - after / before:.0%}."
            if self.acceptance < 1
            else f"{n} of {len(self.assignment)} villages treated."
        ]


def assign(
    villages: Any,
    imagery: Any = None,
    *,
    strata: Any = None,
    share: float = 0.5,
    balance_on: str | Sequence[str] | None = IMAGES,
    acceptance: float = 0.05,
    n_components: int = 5,
    size_m: float | None = None,
    n_draws: int = 20_000,
    seed: int = 0,
) -> Assignment:
    """Assign villages to treatment within strata, drawn anew until image features are balanced.

    Many assignments are drawn within strata; those with the smallest Mahalanobis distance between the arms are
    accepted (Morgan and Rubin 2012), and one of these is chosen at random. The probability of each village is its
    share among them: exactly one half with ``share=0.5``, since an assignment and its opposite are accepted
    together. The result depends on the villages' index and the seed, not on the order of the rows.

    Parameters
    ----------
    villages : DataFrame or GeoDataFrame of n rows
        One row a village, the unit of assignment, with a unique index.
    imagery : Imagery, dict of Imagery, array of shape (n, k) or None
        Images of the places, or features in the rows' order; None where no images are balanced.
    strata : str or array of shape (n,), optional
        Column or labels of the blocks within which villages are assigned. Where a block's share is no whole number,
        chance rounds it, so that each village keeps its probability.
    share : float
        Share of treated villages.
    balance_on : "images", column names, both in a list, or None
        What to balance; None assigns within strata only.
    acceptance : float
        Share of assignments that is accepted; smaller balances more and leaves fewer assignments to test with.
    n_components : int
        Components of the image features that are balanced.
    size_m : float, optional
        Side of the chip around a village in metres; by default 32 pixels.
    n_draws : int
        Assignments drawn; ``acceptance * n_draws`` are kept.
    seed : int
        Of encoder and assignments.

    Returns
    -------
    Assignment

    Raises
    ------
    DataError, ColumnError, ParameterError
        If villages repeat, a column is missing or not numeric, or too few assignments would be accepted.

    Notes
    -----
    Tests that permute the treatment freely within strata are conservative after re-randomisation;
    the result's ``test`` is exact. With a share other than one half the probabilities have a Monte Carlo standard
    error of at most ``0.5 / sqrt(acceptance * n_draws)``.

    Examples
    --------
    >>> villages = pd.DataFrame({"size": np.arange(40.0), "district": np.repeat(["east", "west"], 20)})
    >>> plan = assign(villages, strata="district", balance_on=["size"], seed=1)
    >>> int(plan.assignment.sum()), set(plan.probability)
    (20, {0.5})
    >>> bool(plan.balance.loc["size", "sd_after"] < 0.1 * plan.balance.loc["size", "sd_before"])
    True
    """
    frame = one_row_a_village(villages)
    _check_numbers(share, acceptance, n_draws)
    order = np.argsort(by_label(frame.index))
    ordered = frame.iloc[order]
    block = _blocks(frame, strata)[order]
    names, features = _features(ordered, imagery, order, balance_on, n_components, size_m, seed)
    rng = np.random.default_rng(seed)
    drawn = draw_assignments(block, share, n_draws, rng)
    z = whitened(_within(features, block), features.shape[1]) if len(names) else np.zeros((len(frame), 0))
    distance = mahalanobis(drawn, z, block, share)
    kept, threshold = accept(distance, acceptance if len(names) else 1.0)
    accepted = drawn[kept]
    chosen = int(rng.integers(len(accepted)))
    if share == 0.5:
        accepted = np.concatenate([accepted, ~accepted])
    treated, probability = accepted[chosen], accepted.mean(axis=0)
    _check_probabilities(probability)
    return _result(
        frame, order, block if strata is not None else None, treated, probability, accepted,
        balance_table(names, features, treated, drawn, accepted), float(distance[kept][chosen]), threshold,
        acceptance if len(names) else 1.0,
    )  # fmt: skip


def _weighted_difference(drawn: BoolArray, total: FloatArray, count: FloatArray, p: FloatArray) -> FloatArray:
    """Difference of the arms' means for each assignment, villages weighted by their probabilities."""
    up, down = drawn / p, ~drawn / (1 - p)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(up @ total / (up @ count) - down @ total / (down @ count), dtype=np.float64)


def draw_assignments(block: NDArray[np.int64], share: float, n_draws: int, rng: np.random.Generator) -> BoolArray:
    """Complete randomisations within blocks, shape (n_draws, n); the number treated is rounded by chance.

    Examples
    --------
    >>> drawn = draw_assignments(np.array([0, 0, 0, 1, 1]), 0.5, 4000, np.random.default_rng(0))
    >>> bool(np.abs(drawn.mean(axis=0) - 0.5).max() < 0.03), set(drawn[:, 3:].sum(axis=1))
    (True, {np.int64(1)})
    """
    out = np.empty((n_draws, len(block)), dtype=bool)
    for code in np.unique(block):
        rows = np.flatnonzero(block == code)
        target = share * len(rows)
        low = int(np.floor(target + 1e-9))
        count = low + (rng.random(n_draws) < target - low - 1e-9)
        rank = rng.random((n_draws, len(rows)), dtype=np.float32).argsort(axis=1).argsort(axis=1)
        out[:, rows] = rank < count[:, None]
    return out


def mahalanobis(drawn: BoolArray, z: FloatArray, block: NDArray[np.int64], share: float) -> FloatArray:
    """Distance of each assignment's treated sums of features (centred in blocks), by their covariance over draws."""
    if not z.shape[1]:
        return np.zeros(len(drawn))
    total = drawn.astype(np.float32) @ z.astype(np.float32)
    cov = np.zeros((z.shape[1], z.shape[1]))
    for code in np.unique(block):
        rows = z[block == code]
        n = len(rows)
        if n > 1:
            target = share * n
            low = np.floor(target + 1e-9)
            up = max(target - low, 0.0)
            spread = (1 - up) * low * (n - low) + up * (low + 1) * (n - low - 1)
            cov += spread / (n * (n - 1)) * rows.T @ rows
    return np.asarray(((total @ np.linalg.pinv(cov, hermitian=True)) * total).sum(axis=1), dtype=np.float64)


def accept(distance: FloatArray, acceptance: float) -> tuple[NDArray[np.int64], float]:
    """Positions of the share of assignments with the smallest distances, in the order drawn, and the largest."""
    n = max(1, round(acceptance * len(distance)))
    kept = np.sort(np.argsort(distance, kind="stable")[:n])
    return kept, float(distance[kept].max())


def balance_table(
    names: list[str], features: FloatArray, treated: BoolArray, drawn: BoolArray, accepted: BoolArray
) -> pd.DataFrame:
    """Differences of the arms' means in standard deviations: of this assignment, and their spread over all."""
    z = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-300)

    def difference(assigned: BoolArray) -> FloatArray:
        t = assigned.astype(np.float32)
        n = t.sum(axis=1, keepdims=True)
        return np.asarray(t @ z / np.maximum(n, 1) + t @ z / np.maximum(len(z) - n, 1), dtype=np.float64)

    columns = {
        "difference": difference(treated[None])[0],
        "sd_before": difference(drawn).std(axis=0),
        "sd_after": difference(accepted).std(axis=0),
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="feature"))


def _check_numbers(share: float, acceptance: float, n_draws: int) -> None:
    if not 0 < share < 1:
        raise ParameterError(f"share={share!r}", expected="the share of treated villages, between 0 and 1")
    if not 0 < acceptance <= 1:
        raise ParameterError(f"acceptance={acceptance!r}", expected="a share of assignments in (0, 1]")
    if acceptance * n_draws < MIN_ACCEPTED:
        raise ParameterError(
            f"acceptance={acceptance:g} of n_draws={n_draws} assignments",
            expected=f"at least {MIN_ACCEPTED} accepted ones",
            todo=f"n_draws={int(np.ceil(MIN_ACCEPTED / acceptance))} or more",
        )


def _blocks(frame: pd.DataFrame, strata: Any) -> NDArray[np.int64]:
    if strata is None:
        return np.zeros(len(frame), dtype=np.int64)
    if isinstance(strata, str):
        strata = frame[_column(frame, strata, "strata")]
    elif isinstance(strata, pd.Series) and set(strata.index) == set(frame.index):
        strata = strata.reindex(frame.index)
    labels = np.asarray(strata, dtype=object)
    if labels.shape != (len(frame),) or pd.isna(labels).any():
        raise DataError(
            f"strata of shape {labels.shape}, {int(pd.isna(labels).sum())} missing, for {len(frame)} villages",
            expected="one label for each village",
        )
    code = np.unique([f"{type(v).__name__} {v}" for v in labels], return_inverse=True)[1].astype(np.int64)
    alone = int((np.bincount(code) < 2).sum())
    if alone:
        warn(
            f"{alone} of {code.max() + 1} strata hold a single village, which is assigned by chance and compared "
            "with no other of its stratum: join strata",
            DataWarning,
        )
    return code


def _column(frame: pd.DataFrame, name: str, role: str) -> str:
    if name not in frame.columns:
        raise ColumnError(
            f"{role} {name!r} is no column of the villages",
            expected=f"one of {', '.join(map(str, frame.columns[:12]))}",
        )
    return name


def _features(
    ordered: pd.DataFrame,
    imagery: Any,
    order: NDArray[np.int64],
    balance_on: Any,
    n_components: int,
    size_m: float | None,
    seed: int,
) -> tuple[list[str], FloatArray]:
    """What is balanced, in the order of the labels."""
    wanted = [] if balance_on is None else [balance_on] if isinstance(balance_on, str) else list(balance_on)
    names: list[str] = []
    parts: list[FloatArray] = []
    if IMAGES in wanted:
        if imagery is None:
            raise ParameterError(
                "balance_on='images' without imagery",
                expected="imagery, or features of the villages as an array",
                todo="pass imagery=, or balance_on=[columns], or balance_on=None",
            )
        if not hasattr(imagery, "iter_chips") and not isinstance(imagery, dict):
            imagery = imagery.iloc[order] if isinstance(imagery, pd.DataFrame) else np.asarray(imagery)[order]
        parts.append(image_features(ordered, imagery, size_m=size_m, n_components=n_components, seed=seed))
        names += [f"image {k + 1}" for k in range(parts[0].shape[1])]
    for name in (w for w in wanted if w != IMAGES):
        values = ordered[_column(ordered, name, "balance_on")]
        if values.dtype.kind not in "biuf" or not np.isfinite(values.to_numpy(dtype=float)).all():
            raise ColumnError(
                f"balance_on {name!r} holds {values.dtype}, or missing values",
                expected="finite numbers",
                todo="code it as numbers, or use it as strata",
            )
        names.append(name)
        parts.append(values.to_numpy(dtype=float)[:, None])
    return names, np.hstack(parts) if parts else np.zeros((len(ordered), 0))


def _within(features: FloatArray, block: NDArray[np.int64]) -> FloatArray:
    """Features less their means in each block."""
    size = np.bincount(block)
    means = np.stack([np.bincount(block, column) / size for column in features.T], axis=1)
    return np.asarray(features - means[block])


def _check_probabilities(probability: FloatArray) -> None:
    never = int(((probability <= 0) | (probability >= 1)).sum())
    if never:
        raise DataError(
            f"{never} of {len(probability)} villages are always or never treated in the accepted assignments",
            expected="each village in both arms",
            todo="raise acceptance or n_draws, balance fewer features, or set such a village apart",
        )


def _result(
    frame: pd.DataFrame,
    order: NDArray[np.int64],
    block: NDArray[np.int64] | None,
    treated: BoolArray,
    probability: FloatArray,
    accepted: BoolArray,
    balance: pd.DataFrame,
    imbalance: float,
    threshold: float,
    acceptance: float,
) -> Assignment:
    """Back in the order of the rows."""
    back = np.argsort(order)
    assignment = pd.Series(treated[back].astype(int), index=frame.index, name="assignment")
    chance = pd.Series(probability[back], index=frame.index, name="probability")
    blocks = None if block is None else block[back]
    geometry = getattr(frame, "active_geometry_name", None)
    table = pd.DataFrame(frame.drop(columns=[geometry] if geometry else []))
    if geometry and not {"lon", "lat"} & set(table.columns) and frame.crs is not None:
        points = frame.geometry.representative_point().to_crs(4326)
        table = table.assign(lon=points.x.to_numpy(), lat=points.y.to_numpy())
    table = table.assign(assignment=assignment, probability=chance)
    if blocks is not None:
        table = table.assign(stratum=blocks)
    counted = blocks is not None and len(np.unique(blocks)) < len(blocks)
    design = make_design(assignment.to_numpy(), strata=blocks if counted else None, propensity=chance.to_numpy())
    return Assignment(assignment, chance, design, balance, imbalance, threshold, acceptance, accepted[:, back], table)
