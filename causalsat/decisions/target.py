"""Whom to treat with a budget: a plan for places, what it is worth by the trial, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat import plots
from causalsat.base import effect
from causalsat.core.files import whole_file, writing
from causalsat.core.inputs import align
from causalsat.core.tables import Tabular, write_csv
from causalsat.decisions.policy_tree import PolicyTree
from causalsat.evaluation import GainCurve, PolicyValue, dr_scores, gain_curve, policy_difference, policy_value
from causalsat.exceptions import ColumnError, DataError, ParameterError

__all__ = ["TargetingPlan", "check_plan", "plan_of", "target", "worth_it"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RULES = ("ranking", "tree")
MOST_DRAWS = 400  # of the posterior, in each of which the best plan is sought
PRICE_STEPS = 16  # bisections of the price of money at which a tree keeps to the budget


@dataclass(frozen=True, eq=False)
class TargetingPlan(Tabular):
    """Whom to treat with a budget.

    Attributes
    ----------
    table : DataFrame
        One row a place, in the order of the ranking: ``rank, effect, sd, prob_worth, cost, treat``; ``treat`` is 1,
        0, or the part of the last place that the budget pays.
    value : PolicyValue
        What the rule brings a head over treating nobody, by the trial's held-out scores: each unit is ranked by a
        model that did not see it, and the same budget a head is spent.
    over_random : PolicyValue
        The same less what the budget brings when it is spent at random.
    gain_curve : GainCurve
        Gain of every budget.
    regret : float
        Posterior expectation, a head, of the gain that the best plan for the true effects has over this plan: what
        perfect information would be worth.
    budget, spent : float
        Budget, and what the plan costs.
    rule : str
        "ranking" or "tree".
    tree : PolicyTree or None
        The rule of ``rule="tree"``, fitted to all units.
    geometry : GeoSeries or None
        Where the places are.
    units, currency : str
        Units of the outcome and of costs.
    notes : tuple of str
        What the numbers do not say.
    """

    table: pd.DataFrame
    value: PolicyValue
    over_random: PolicyValue
    gain_curve: GainCurve
    regret: float
    budget: float
    spent: float
    rule: str
    tree: Any = None
    geometry: Any = None
    units: str = ""
    currency: str = ""
    notes: tuple[str, ...] = ()

    @property
    def n_treated(self) -> int:
        """Number of places of which at least a part is treated."""
        return int((self.table["treat"] > 0).sum())

    def to_dataframe(self) -> pd.DataFrame:
        """The table of places."""
        return self.table.copy()

    def paragraph(self) -> str:
        """The plan in words for a report; says plainly where the interval includes no gain."""
        unit, money = (f" {word}" if word else "" for word in (self.units, self.currency))
        v, r = self.value, self.over_random
        sentences = [
            f"A budget of {self.budget:,.6g}{money} treats {self.n_treated:,} of {len(self.table):,} places, which "
            f"costs {self.spent:,.6g}{money}.",
            f"By the trial such a rule brings {v.estimate:.3g}{unit} a head ({v.lower:.3g} to {v.upper:.3g}) over "
            "treating nobody.",
        ]
        if v.lower <= 0 <= v.upper:
            sentences.append("That interval includes no gain.")
        sentences.append(
            f"Over the same budget spent at random it brings {r.estimate:.3g}{unit} ({r.lower:.3g} to {r.upper:.3g})."
        )
        if r.lower <= 0 <= r.upper:
            sentences.append("That interval includes no gain: the trial does not show that targeting helps.")
        sentences.append(f"Perfect knowledge of the effects would add {self.regret:.3g}{unit} a head by the model.")
        if self.tree is not None:
            sentences.append("The rule: " + "; ".join(self.tree.export_text().splitlines()) + ".")
        return " ".join([*sentences, *self.notes])

    def plot(self, **options: Any) -> Any:
        """Draw the gain curve with the budget marked; options of :func:`causalsat.plots.plot_gain_curve`."""
        a_head = self.budget / len(self.table)
        return self.gain_curve.plot(**{"budget": a_head, "units": self.units, "currency": self.currency, **options})

    def write(self, folder: str | PathLike[str]) -> list[Path]:
        """Write ``targeting.csv``, ``gain_curve.png``, ``targeting.md`` and, with places, ``targeting.png``.

        Parameters
        ----------
        folder : path-like
            Made if it does not exist; files of these names are replaced.

        Returns
        -------
        list of Path
        """
        import matplotlib.pyplot as plt

        where = Path(folder)
        table = self.table.copy()
        if self.geometry is not None:
            points = self.geometry.representative_point().to_crs("EPSG:4326").reindex(table.index)
            table["lon"], table["lat"] = points.x, points.y
        write_csv(table, where / "targeting.csv")
        paths = [where / "targeting.csv"]
        drawn: dict[str, Callable[[], Any]] = {"gain_curve.png": self.plot}
        if self.geometry is not None:
            drawn["targeting.png"] = lambda: plots.plot_plan(self)
        for name, draw in drawn.items():
            figure = draw().figure
            with writing(where / name), whole_file(where / name) as temporary:
                figure.savefig(temporary, dpi=130, format="png", bbox_inches="tight")
            plt.close(figure)
            paths.append(where / name)
        with writing(where / "targeting.md"), whole_file(where / "targeting.md") as temporary:
            text = f"# Whom to treat\n\n{self.paragraph()}\n\n{self.value.to_markdown(caption='Value a head')}\n"
            temporary.write_text(text, encoding="utf-8")
        return [*paths, where / "targeting.md"]

    def __repr__(self) -> str:
        """The plan in words, and the first places."""
        return f"{self.paragraph()}\n{self.table.head(8).to_string(float_format=lambda v: f'{v:.4g}')}"

    def _notes(self) -> list[str]:
        return [self.paragraph()]


def target(
    analysis: Any,
    *,
    budget: float,
    cost: Any,
    places: Any = None,
    rule: str = "ranking",
    constraints: Mapping[str, Any] | None = None,
    worth: float | None = None,
    features: Any = None,
    place_features: Any = None,
    depth: int = 2,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> TargetingPlan:
    """Plan whom to treat with a budget, and value the rule by the trial.

    Places are ranked by their predicted effect for its cost and treated while the budget lasts and the effect is
    positive (or worth its cost). The same rule, with the same budget a head, is applied to the units of the trial by
    models that did not see them; their doubly robust scores say what it brings.

    Parameters
    ----------
    analysis : Analysis
        What :func:`causalsat.analyse` returned.
    budget : float
        What all treatments of the plan may cost together.
    cost : float, str, array, Imagery or callable
        Cost of treating a place: a number, a column of the places (and of the study's units, for the value), an array
        of one number a place, a raster that is read at each place, or a function of the GeoDataFrame of places.
    places : GeoDataFrame, optional
        Where the plan is for, with the columns that the model needs; the study's further places, or its units where
        it has none, unless given.
    rule : {"ranking", "tree"}
        ``"tree"``: a :class:`causalsat.PolicyTree` of ``depth`` on ``features``, chosen at the price of money at
        which it keeps to the budget; its value comes from trees chosen on other folds.
    constraints : dict, optional
        ``{"column": "district", "share": 0.1}``: of the places of each district at least that share is treated.
    worth : float, optional
        What one unit of the outcome is worth, in units of the costs. Then only places whose expected effect is worth
        its cost are treated, and ``prob_worth`` is the probability of that; otherwise of a positive effect. Values
        and regret stay in units of the outcome, without costs.
    features, place_features : DataFrame, optional
        What a tree may ask, for the units of the trial and for the places: numeric columns of the same names, such as
        spectral indices or travel times. By default the covariates that both have, and the coordinates.
    depth : int
        Questions of a tree.
    n_bootstrap, random_state : int
        Half-samples of the gain curve's errors and their seed.

    Returns
    -------
    TargetingPlan

    Raises
    ------
    ParameterError, ColumnError, DataError
        If the budget is not positive, costs are not positive numbers, or the shares of the constraints cost more than
        the budget.
    """
    check_plan(budget, rule, worth)
    study, found = analysis.study, analysis.crossfit[0]
    notes: list[str] = []
    where, posterior = _posterior(analysis, places)
    prices = _costs(cost, where, "places")
    of_units = _unit_costs(cost, study, prices, notes, own=where is study.units)
    a_head = float(budget) / len(where)
    scores = dr_scores(study.y, study.design.treatment, analysis.nuisances)
    tree, wanted, wanted_units = None, worth_it(posterior.mean(), prices, worth), worth_it(found.tau, of_units, worth)
    if rule == "tree":
        asked = _tree_features(study, where, features, place_features)
        learn = _TreeRule(asked[0], scores, of_units, study.design.weights, a_head, worth, depth)
        tree, wanted, wanted_units = *learn.chosen(asked[1]), learn.held_out(found.fold)
    chosen = plan_of(posterior.mean(), prices, float(budget), wanted, _quotas(constraints, where))
    quotas = _quotas(constraints, study.units, optional=True)
    if constraints is not None and quotas is None:
        notes.append("The value leaves the constraints out: the trial's units have no such column.")
    weights = np.ones(len(study)) if study.design.weights is None else study.design.weights
    policy = _policy_of_units(found, of_units, a_head, wanted_units, quotas, weights)
    share = np.average(policy * of_units, weights=weights) / np.average(of_units, weights=weights)
    ranked = found.tau if rule == "ranking" else np.maximum(found.tau, np.abs(found.tau).max() * 1e-9)
    shared: dict[str, Any] = {
        "groups": study.design.inference_clusters, "weights": study.design.weights, "folds": found.fold,
    }  # fmt: skip
    bootstrap = {"n_bootstrap": n_bootstrap, "random_state": random_state}
    return TargetingPlan(
        table=_table(where, posterior, prices, chosen, worth),
        value=policy_value(policy, scores, **shared),
        over_random=policy_difference(policy, np.full(len(study), min(1.0, float(share))), scores, **shared),
        gain_curve=gain_curve(np.where(wanted_units, ranked, -1.0), scores, of_units, **shared, **bootstrap),
        regret=_regret(posterior.draws, prices, float(budget), worth, chosen),
        budget=float(budget),
        spent=float((chosen * prices).sum()),
        rule=rule,
        tree=tree,
        geometry=getattr(where, "geometry", None),
        units=str(getattr(study, "outcome_unit", "") or ""),
        notes=tuple(notes),
    )


def _policy_of_units(
    found: Any,
    costs: FloatArray,
    a_head: float,
    wanted: NDArray[np.bool_],
    quotas: tuple[IntArray, float] | None,
    weights: FloatArray,
) -> FloatArray:
    """Share of each unit that the rule treats where each fold spends the same budget a head, shape (n,)."""
    policy = np.zeros(len(costs))
    for k in np.unique(found.fold):
        rows = np.flatnonzero(found.fold == k)
        own = None if quotas is None else (quotas[0][rows], quotas[1])
        money = a_head * weights[rows].sum()
        policy[rows] = plan_of(found.tau[rows], costs[rows], money, wanted[rows], own, weights[rows], strict=False)
    return policy


def check_plan(budget: Any, rule: str, worth: Any) -> None:
    """Refuse what cannot be a budget, a rule or a worth, before any work."""
    if not np.isfinite(budget) or budget <= 0:
        raise ParameterError(f"budget={budget!r}", expected="a positive number, in units of the costs")
    if rule not in RULES:
        raise ParameterError(f"rule={rule!r}", expected=" or ".join(map(repr, RULES)))
    if worth is not None and not (np.isfinite(worth) and worth > 0):
        raise ParameterError(f"worth={worth!r}", expected="what a unit of the outcome is worth, a positive number")


def _posterior(analysis: Any, places: Any) -> tuple[Any, Any]:
    """The places of the plan and the posterior of their effects."""
    if places is not None:
        return places, effect(analysis.model, places)
    if analysis.places is not None:
        return analysis.study.places, analysis.places
    return analysis.study.units, analysis.posterior


# ---------------------------------------------------------------------- costs
def _costs(cost: Any, where: Any, role: str) -> FloatArray:
    """Cost of each place, positive."""
    n = len(where)
    if isinstance(cost, str):
        if cost not in where.columns:
            raise ColumnError(
                f"cost={cost!r} is no column of the {role}",
                expected=f"one of {', '.join(map(str, list(where.columns)[:8]))}",
                todo="pass the costs as a number, an array of one number a place, a raster or a function",
            )
        values = where[cost]
    elif hasattr(cost, "iter_chips"):
        values = _at_pixels(cost, where)
    elif callable(cost):
        values = cost(where)
    else:
        values = align(where, cost, "cost") if np.ndim(cost) else cost
    try:
        prices = np.broadcast_to(np.asarray(values, dtype=float), (n,)).copy()
    except (TypeError, ValueError):
        raise DataError(
            f"costs of shape {np.shape(values)} for {n} {role}", expected="a number, or one number for each"
        ) from None
    bad = ~(np.isfinite(prices) & (prices > 0))
    if bad.any():
        first = where.index[np.flatnonzero(bad)[0]]
        raise DataError(
            f"{int(bad.sum())} of {n} {role} have no positive cost, the first at {first!r} ({prices[bad][0]:g})",
            expected="what treating it costs, a positive number",
            todo="leave those places out, or give their cost",
        )
    return prices


def _at_pixels(imagery: Any, where: Any) -> FloatArray:
    out = np.full(len(where), np.nan)
    for position, chips in imagery.iter_chips(where.geometry, 1):
        out[position] = chips.reshape(len(chips), -1)[:, 0]
    return out


def _unit_costs(cost: Any, study: Any, prices: FloatArray, notes: list[str], *, own: bool) -> FloatArray:
    """Cost of each unit of the trial: as of the places; their mean, with a note, where only theirs are known."""
    if own:
        return prices
    by_place = not isinstance(cost, str) and not callable(cost) and not hasattr(cost, "iter_chips") and np.ndim(cost)
    if by_place or (isinstance(cost, str) and cost not in study.units.columns):
        notes.append("Costs are known for the places alone: the value takes their mean for each unit of the trial.")
        return np.full(len(study), prices.mean())
    return _costs(cost, study.units, "units")


# ---------------------------------------------------------------------- plans
def _quotas(
    constraints: Mapping[str, Any] | None, where: Any, *, optional: bool = False
) -> tuple[IntArray, float] | None:
    """Code of each place's district, and the least share of each; None without constraints."""
    if constraints is None:
        return None
    unknown = set(constraints) - {"column", "share"}
    if unknown or set(constraints) != {"column", "share"}:
        raise ParameterError(f"constraints={dict(constraints)!r}", expected='{"column": name, "share": 0.1}')
    share = constraints["share"]
    if not 0 <= share <= 1:
        raise ParameterError(f"share={share!r}", expected="a share from 0 to 1")
    column = constraints["column"]
    if column not in getattr(where, "columns", ()):
        if optional:
            return None
        raise ColumnError(f"constraints name {column!r}, no column of the places", expected="a column of the places")
    codes, _ = pd.factorize(where[column], sort=True)
    if (codes < 0).any():
        raise DataError(f"{int((codes < 0).sum())} places without a {column}", expected="the district of each place")
    return codes.astype(np.int64), float(share)


def worth_it(effects: FloatArray, costs: FloatArray, worth: float | None) -> NDArray[np.bool_]:
    """Whether effects are positive, or worth their cost."""
    return np.asarray(effects > 0 if worth is None else effects * worth > costs)


def plan_of(
    effects: FloatArray,
    costs: FloatArray,
    budget: float,
    wanted: NDArray[np.bool_],
    quotas: tuple[IntArray, float] | None = None,
    weights: FloatArray | None = None,
    *,
    strict: bool = True,
) -> FloatArray:
    """Share of each place that is treated, shape (n,): quotas first, then who is wanted, the best ratio first."""
    n = len(effects)
    price = costs if weights is None else costs * weights
    order = np.lexsort((costs, -effects / costs))
    out, left = np.zeros(n), budget
    if quotas is not None:
        codes, share = quotas
        for k in np.unique(codes):
            own = order[codes[order] == k]
            take = own[: int(np.ceil(share * len(own) - 1e-9))]
            out[take] = 1.0
            left -= float(price[take].sum())
        if left < -1e-9 * budget:
            if strict:
                raise DataError(
                    f"a share of {share:g} of each district costs {budget - left:,.6g}, the budget is {budget:,.6g}",
                    expected="a budget that pays the shares",
                    todo="lower the share or raise the budget",
                )
            out *= budget / (budget - left)
            return out
    rest = order[(wanted & (out == 0))[order]]
    spent = np.cumsum(price[rest])
    whole = spent <= left * (1 + 1e-12)
    out[rest[whole]] = 1.0
    cut = int(whole.sum())
    if cut < len(rest):
        before = spent[cut - 1] if cut else 0.0
        out[rest[cut]] = max(0.0, (left - before) / price[rest[cut]])
    return out


def _regret(draws: FloatArray, costs: FloatArray, budget: float, worth: float | None, chosen: FloatArray) -> float:
    """Mean over posterior draws, a head, of the best plan's gain for that draw less this plan's."""
    some = draws[np.unique(np.linspace(0, len(draws) - 1, min(len(draws), MOST_DRAWS)).astype(int))]
    lost = []
    for tau in some:
        net = tau if worth is None else tau - costs / worth
        best = plan_of(tau, costs, budget, worth_it(tau, costs, worth))
        lost.append(max(float(best @ net - chosen @ net), 0.0))
    return float(np.mean(lost) / draws.shape[1])


def _table(where: Any, posterior: Any, costs: FloatArray, chosen: FloatArray, worth: float | None) -> pd.DataFrame:
    mean = posterior.mean()
    table = pd.DataFrame(
        {
            "effect": mean,
            "sd": posterior.sd(),
            "prob_worth": worth_it(posterior.draws, costs, worth).mean(axis=0),
            "cost": costs,
            "treat": chosen,
        },
        index=pd.Index(where.index, name=where.index.name or "place"),
    )
    order = np.lexsort((costs, -mean / costs, -(chosen > 0).astype(int)))
    table = table.iloc[order]
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


# ---------------------------------------------------------------------- trees
@dataclass(frozen=True)
class _TreeRule:
    """What a tree that keeps to a budget is chosen from."""

    features: pd.DataFrame
    scores: FloatArray
    costs: FloatArray
    weights: FloatArray | None
    a_head: float
    worth: float | None
    depth: int

    def chosen(self, there: pd.DataFrame) -> tuple[PolicyTree, NDArray[np.bool_]]:
        """The tree chosen on all units, and whom it treats elsewhere."""
        tree = self.tree(np.ones(len(self.scores), dtype=bool))
        return tree, tree.predict(there) == 1

    def held_out(self, fold: IntArray) -> NDArray[np.bool_]:
        """Whom trees that were chosen on the other folds treat, shape (n,)."""
        out = np.zeros(len(fold), dtype=bool)
        for k in np.unique(fold):
            own = fold == k
            out[own] = self.tree(~own).predict(self.features[own]) == 1
        return out

    def tree(self, rows: NDArray[np.bool_]) -> PolicyTree:
        """The tree chosen on some units: the lowest price of money at which it spends at most the budget a head."""
        weight = np.ones(int(rows.sum())) if self.weights is None else self.weights[rows]
        costs = self.costs[rows]
        least = max(1, int(rows.sum()) // 50)

        def at(price: float) -> tuple[PolicyTree, float]:
            tree = PolicyTree(self.depth, min_leaf=least).fit(
                self.features[rows], self.scores[rows], costs=price * costs, sample_weight=weight
            )
            return tree, float(np.average(tree.predict(self.features[rows]) * costs, weights=weight))

        low = 0.0 if self.worth is None else 1.0 / self.worth
        tree, spent = at(low)
        if spent <= self.a_head:
            return tree
        high = float(np.abs(self.scores[rows]).max() / costs.min()) + low
        best = at(high)[0]
        for _ in range(PRICE_STEPS):
            middle = (low + high) / 2
            tree, spent = at(middle)
            if spent <= self.a_head:
                best, high = tree, middle
            else:
                low = middle
        return best


def _tree_features(study: Any, where: Any, features: Any, there: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features of the units and of the places that a tree may ask."""
    if (features is None) != (there is None) and where is not study.units:
        raise ParameterError(
            "features of the units or of the places alone",
            expected="both, with the same columns",
            todo="pass features= and place_features=",
        )
    if features is not None:
        one, two = pd.DataFrame(features), pd.DataFrame(features if there is None else there)
        if list(one.columns) != list(two.columns):
            raise ParameterError(
                f"features {list(one.columns)} and place_features {list(two.columns)}", expected="the same columns"
            )
        return one, two
    shared = [
        c
        for c in study.covariates
        if c in getattr(where, "columns", ())
        and pd.api.types.is_numeric_dtype(study.units[c])
        and not study.units[c].isna().any()
        and not where[c].isna().any()
    ]
    geographic = study.units.crs is not None and study.units.crs.is_geographic
    names = [
        f"place {name}" if name in shared else name for name in (("lon", "lat") if geographic else ("east", "north"))
    ]
    tables = []
    for frame in (study.units, where):
        points = frame.geometry.representative_point().to_crs(study.units.crs)
        tables.append(pd.DataFrame(frame[shared]).assign(**dict(zip(names, (points.x, points.y), strict=True))))
    return tables[0], tables[1]
