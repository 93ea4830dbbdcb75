"""Whom to treat with a budget: a plan for places, what it is worth by the trial, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from causalsat.base import effect
from causalsat.core.names import printed
from causalsat.core.tables import Tabular
from causalsat.decisions.place_features import by_label
from causalsat.decisions.plan_outputs import write_plan
from causalsat.decisions.policy_tree import PolicyTree
from causalsat.decisions.prices import Prices, check_cost_per, prices_of, prices_of_units
from causalsat.decisions.ranking import cutoff_of, paid_from, plan_of, queue, worth_it
from causalsat.evaluation import GainCurve, PolicyValue, gain_curve, policy_difference, policy_value
from causalsat.exceptions import ColumnError, DataError, ParameterError
from causalsat.mapping.compute import image_encoders

__all__ = ["RuleSource", "TargetingPlan", "check_plan", "policy_of_units", "target"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RULES = ("ranking", "tree")
MAX_DRAWS = 400  # of the posterior, in each of which the best plan is sought
PRICE_STEPS = 16  # bisections of the price of money at which a tree keeps to the budget


@dataclass(frozen=True, eq=False)
class RuleSource:
    """What a map of the rule of a plan is made from.

    Attributes
    ----------
    model : Pipeline
        Of images.
    imagery : Imagery
        What is mapped.
    cost, people, cost_per
        As in :func:`target`.
    mean_cost : float
        Cost a head of the places, for cells whose own cost nobody knows.
    cutoff : float
        Effect for its cost a head down to which places are treated.
    worth : float or None
        What one unit of the outcome is worth.
    sites : GeoDataFrame or None
        Places of the trial.
    """

    model: Any
    imagery: Any
    cost: Any
    people: Any
    cost_per: str
    mean_cost: float
    cutoff: float
    worth: float | None
    sites: Any


@dataclass(frozen=True, eq=False)
class TargetingPlan(Tabular):
    """Whom to treat with a budget.

    Attributes
    ----------
    table : DataFrame
        One row a place, in the order of the ranking: ``rank, effect, sd, prob_worth, cost, treat, paid_from``, and
        ``people`` where they are counted. ``cost`` is that of the whole place; ``treat`` is 1, 0, or the part of the
        last place that the budget pays; ``paid_from`` is the smallest budget that treats the whole place.
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
    heads : float
        People of all places, or the number of places where people are not counted: what "a head" refers to.
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
    source : RuleSource or None
        What a map of the rule is made from; None where the model sees no images or the rule asks other features.
    constrained : bool
        Whether districts get a share.
    """

    table: pd.DataFrame
    value: PolicyValue
    over_random: PolicyValue
    gain_curve: GainCurve
    regret: float
    budget: float
    spent: float
    heads: float
    rule: str
    tree: Any = None
    geometry: Any = None
    units: str = ""
    currency: str = ""
    notes: tuple[str, ...] = ()
    source: RuleSource | None = None
    constrained: bool = False

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
        curve = self.gain_curve
        low = curve.over_random - norm.ppf(0.975) * curve.over_random_se
        if np.isfinite(low).any() and not (low > 0).any():
            sentences.append("At no other budget does the interval of that gain exclude zero.")
        sentences.append(f"Perfect knowledge of the effects would add {self.regret:.3g}{unit} a head by the model.")
        if self.tree is not None:
            sentences.append("The rule: " + "; ".join(self.tree.export_text().splitlines()) + ".")
        return " ".join([*sentences, *self.notes])

    def plot(self, **options: Any) -> Any:
        """Draw the gain curve with the budget marked; options of :func:`causalsat.plots.plot_gain_curve`."""
        shown = {"budget": self.budget / self.heads, "units": self.units, "currency": self.currency}
        return self.gain_curve.plot(**{**shown, **options})

    def write(
        self,
        folder: str | PathLike[str],
        *,
        resolution: float | None = None,
        with_map: bool = True,
        progress: bool = False,
    ) -> list[Path]:
        """Write the plan as table, pictures, page, words and, where the model sees images, as a map.

        ``targeting.csv``, ``gain_curve.png`` and ``targeting.md``; with places ``targeting.png`` and the page
        ``targeting.html``, whose slider shows whom every budget treats and what it brings. With imagery also
        ``effects.tif`` (:func:`causalsat.map_effects`), ``policy.tif``, where the rule would treat a place, with its
        picture ``policy.png``. An interrupted map continues where it stopped when the plan is written again.

        Parameters
        ----------
        folder : path-like
            Made if it does not exist; files of these names are replaced.
        resolution : float, optional
            Side of the map's cells in metres; at most 65,000 cells by default. ``targeting.md`` says it.
        with_map : bool
            Whether to draw the map of the rule.
        progress : bool
            Show a progress bar of the map.

        Returns
        -------
        list of Path
        """
        return write_plan(self, Path(folder), resolution=resolution, with_map=with_map, progress=progress)

    def __repr__(self) -> str:
        """The plan in words, and the first places."""
        return printed(f"{self.paragraph()}\n{self.table.head(8).to_string(float_format=lambda v: f'{v:.4g}')}")

    def _notes(self) -> list[str]:
        return [self.paragraph()]


def target(
    analysis: Any,
    *,
    budget: float,
    cost: Any,
    people: Any = None,
    cost_per: str = "place",
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
    people : float, str, array, Imagery or callable, optional
        People who live at a place, in the same forms, such as a raster of population. Then a place brings its people
        times their effect, and "a head" is for each of them; by default every place counts as one.
    cost_per : {"place", "person"}
        Whether ``cost`` is for the whole place, as of a road, or for each of its people, as of a transfer.
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
        If the budget is not positive, costs or people are not positive numbers, or the shares of the constraints cost
        more than the budget.

    Notes
    -----
    The units of the trial stand for the people of the places by their survey weights, at the cost a head of their
    own place. Units whose predictions are equal, as those of one village, are treated in equal parts.
    """
    check_plan(budget, rule, worth, cost_per)
    _refuse_arms(analysis)
    study, found = analysis.study, analysis.crossfit[0]
    notes: list[str] = []
    if "take_up" in study.roles:
        notes.append("Effects are those of the offer (intention to treat), not of taking it up.")
    where, posterior = _posterior(analysis, places)
    prices = prices_of(cost, people, cost_per, where)
    of_units = prices_of_units(cost, people, cost_per, study, prices, notes, own=where is study.units)
    a_head, mean = float(budget) / float(prices.people.sum()), posterior.mean()
    scores = analysis.scores
    tree, wanted, wanted_units = None, worth_it(mean, prices.a_head, worth), worth_it(found.tau, of_units, worth)
    if rule == "tree":
        asked = _tree_features(study, where, features, place_features)
        learn = _TreeRule(asked[0], scores, of_units, study.design.weights, a_head, worth, depth)
        tree, wanted, wanted_units = *learn.chosen(asked[1]), learn.held_out(found.fold)
    order: dict[str, Any] = {
        "quotas": _quotas(constraints, where),
        "weights": prices.people,
        "ties": by_label(where.index),
    }
    chosen = plan_of(mean, prices.a_head, float(budget), wanted, **order)
    quotas = _quotas(constraints, study.units, optional=True)
    if constraints is not None and quotas is None:
        notes.append("The value leaves the constraints out: the trial's units have no such column.")
    weights = np.ones(len(study)) if study.design.weights is None else study.design.weights
    policy = policy_of_units(found, of_units, a_head, wanted_units, quotas, weights)
    share = np.average(policy * of_units, weights=weights) / np.average(of_units, weights=weights)
    ranked = found.tau if rule == "ranking" else np.maximum(found.tau, np.abs(found.tau).max() * 1e-9)
    shared: dict[str, Any] = {
        "groups": study.design.inference_clusters, "weights": study.design.weights, "folds": found.fold,
    }  # fmt: skip
    bootstrap = {"n_bootstrap": n_bootstrap, "random_state": random_state}
    table = _table(
        where, posterior, prices, chosen, paid_from(mean, prices.a_head, wanted, **order), worth,
        counted=people is not None,
    )  # fmt: skip
    cutoff = cutoff_of(mean / prices.a_head, chosen, wanted, queue(mean, prices.a_head, wanted, order["quotas"])[0])
    return TargetingPlan(
        table=table,
        value=policy_value(policy, scores, **shared),
        over_random=policy_difference(policy, np.full(len(study), min(1.0, float(share))), scores, **shared),
        gain_curve=gain_curve(np.where(wanted_units, ranked, -1.0), scores, of_units, **shared, **bootstrap),
        regret=_regret(posterior.draws, prices, float(budget), worth, chosen),
        budget=float(budget),
        spent=float((chosen * prices.total).sum()),
        heads=float(prices.people.sum()),
        rule=rule,
        tree=tree,
        geometry=getattr(where, "geometry", None),
        units=str(getattr(study, "outcome_unit", "") or ""),
        notes=tuple(notes),
        source=_source(analysis, cost, people, cost_per, prices, cutoff, worth) if rule == "ranking" else None,
        constrained=constraints is not None,
    )


def _source(
    analysis: Any, cost: Any, people: Any, cost_per: str, prices: Prices, cutoff: float, worth: float | None
) -> RuleSource | None:
    """What a map of the rule is made from; None where the model sees no images."""
    study = analysis.study
    if study.imagery is None or not image_encoders(analysis.model):
        return None
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    mean_cost = float(np.average(prices.a_head, weights=prices.people))
    return RuleSource(analysis.model, imagery, cost, people, cost_per, mean_cost, cutoff, worth, study.sites())


def policy_of_units(
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
        policy[rows] = plan_of(
            found.tau[rows], costs[rows], money, wanted[rows], own, weights[rows], strict=False, in_parts=True
        )
    return policy


def check_plan(budget: Any, rule: str, worth: Any, cost_per: str = "place") -> None:
    """Refuse what cannot be a budget, a rule or a worth, before any work."""
    if not np.isfinite(budget) or budget <= 0:
        raise ParameterError(f"budget={budget!r}", expected="a positive number, in units of the costs")
    if rule not in RULES:
        raise ParameterError(f"rule={rule!r}", expected=" or ".join(map(repr, RULES)))
    if worth is not None and not (np.isfinite(worth) and worth > 0):
        raise ParameterError(f"worth={worth!r}", expected="what a unit of the outcome is worth, a positive number")
    check_cost_per(cost_per)


def _refuse_arms(analysis: Any) -> None:
    """Refuse an analysis of several arms: a plan spends a budget on one treatment."""
    pairs = getattr(analysis, "pairs", None)
    if pairs:
        first = next(iter(pairs))
        raise ParameterError(
            f"an analysis of {len(analysis.study.arms)} arms",
            expected="of one treatment against a baseline",
            todo=f"target(analysis.pairs[{first!r}], ...), or evaluation.gain_curve for several arms",
        )


def _check_labels(where: Any) -> None:
    """Refuse places that cannot be told apart by their index."""
    repeats = where.index.duplicated()
    if repeats.any():
        raise DataError(
            f"{int(repeats.sum())} places whose index repeats, such as {where.index[repeats][0]!r}",
            expected="a label of its own for each place",
            todo="places.reset_index(drop=True)",
        )


def _posterior(analysis: Any, places: Any) -> tuple[Any, Any]:
    """The places of the plan and the posterior of their effects."""
    if places is not None:
        _check_labels(places)
        return places, effect(analysis.model, places)
    if analysis.places is not None:
        return analysis.study.places, analysis.places
    return analysis.study.units, analysis.posterior


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


def _regret(draws: FloatArray, prices: Prices, budget: float, worth: float | None, chosen: FloatArray) -> float:
    """Mean over posterior draws, a head, of the best plan's gain for that draw less this plan's."""
    some = draws[np.unique(np.linspace(0, len(draws) - 1, min(len(draws), MAX_DRAWS)).astype(int))]
    costs, people = prices.a_head, prices.people
    lost = []
    for tau in some:
        net = people * (tau if worth is None else tau - costs / worth)
        best = plan_of(tau, costs, budget, worth_it(tau, costs, worth), weights=people)
        lost.append(max(float(best @ net - chosen @ net), 0.0))
    return float(np.mean(lost) / people.sum())


def _table(
    where: Any,
    posterior: Any,
    prices: Prices,
    chosen: FloatArray,
    paid: FloatArray,
    worth: float | None,
    *,
    counted: bool,
) -> pd.DataFrame:
    """The places in the order of the plan."""
    mean, ties = posterior.mean(), by_label(where.index)
    columns = {"effect": mean, "sd": posterior.sd()}
    columns |= {"prob_worth": worth_it(posterior.draws, prices.a_head, worth).mean(axis=0)}
    columns |= {"people": prices.people} if counted else {}
    columns |= {"cost": prices.total, "treat": chosen, "paid_from": paid}
    table = pd.DataFrame(columns, index=pd.Index(where.index, name=where.index.name or "place"))
    order = np.lexsort((ties, prices.a_head, -mean / prices.a_head, -(chosen > 0).astype(int)))
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
