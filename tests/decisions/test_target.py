"""Plans: budgets, costs, quotas, values by the trial against the truth, regret, trees, files, maps."""

from __future__ import annotations

from types import SimpleNamespace

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import rasterio

import causalsat
from causalsat import DoublyRobustEffect, Study, map_policy, target
from causalsat.core.optional import is_installed
from causalsat.decisions.ranking import paid_from, plan_of, worth_it
from causalsat.decisions.target import policy_of_units
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores
from causalsat.exceptions import ColumnError, DataError, OutputError, ParameterError

mpl.use("Agg")


def trial(seed=0, n_villages=80, people=5):
    """A study without imagery whose effect is 1 + x, and the parts of an analysis that a plan needs."""
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(n_villages), people)
    x = rng.standard_normal(n_villages)[village]
    t = (rng.permutation(n_villages) % 2)[village]
    y = x + t * (0.5 + x) + 0.3 * rng.standard_normal(n_villages)[village] + 0.5 * rng.standard_normal(len(village))
    units = gpd.GeoDataFrame(
        {"y": y, "t": t, "x": x, "village": village, "price": 1.0 + (village % 2), "district": village % 4},
        geometry=gpd.points_from_xy(30 + 0.01 * (village % 10), 1 + 0.01 * (village // 10)),
        crs=4326,
    )
    study = Study(units, outcome="y", treatment="t", covariates=["x"], cluster="village", name="toy")
    X = study.X[["x"]]
    options = {"groups": study.groups, "treatment": study.treatment}
    model = DoublyRobustEffect(random_state=0).fit(X, study.y, **options)
    return SimpleNamespace(
        study=study,
        model=model,
        posterior=model.effect(X),
        places=None,
        crossfit=(crossfit_effects(DoublyRobustEffect(random_state=0), X, study.y, progress=False, **options),),
        scores=dr_scores(
            study.y,
            study.treatment,
            crossfit_nuisances(X, study.y, study.treatment, groups=study.groups, random_state=0),
        ),
    )


@pytest.fixture(scope="module")
def analysis():
    return trial()


def test_a_plan_spends_the_budget_on_the_best_ratios():
    effects, costs = np.array([3.0, 2.0, 1.0, -1.0]), np.array([2.0, 1.0, 1.0, 1.0])
    gains = worth_it(effects, costs, None)
    assert gains.tolist() == [True, True, True, False]
    assert plan_of(effects, costs, 2.0, gains).tolist() == [0.5, 1, 0, 0]
    assert plan_of(effects, costs, 100.0, gains).tolist() == [1, 1, 1, 0]
    assert plan_of(effects, costs, 100.0, worth_it(effects, costs, 0.9)).tolist() == [1, 1, 0, 0]
    assert plan_of(effects, costs, 2.0, gains & (effects < 3)).tolist() == [0, 1, 1, 0]
    quota = (np.array([0, 0, 1, 1]), 0.5)
    assert plan_of(effects, costs, 2.5, gains, quota).tolist() == [0.25, 1, 1, 0]
    with pytest.raises(DataError, match="costs 2, the budget is 1"):
        plan_of(effects, costs, 1.0, gains, quota)


def test_the_plan_of_a_trial_brings_what_is_true(analysis):
    plan = target(analysis, budget=120.0, cost=1.0)
    x = analysis.study.units["x"].to_numpy()
    best = np.sort(0.5 + x)[::-1][:120].sum() / 400
    treated = plan.table.loc[plan.table["treat"] > 0].index
    brings = (0.5 + analysis.study.units.loc[treated, "x"]).sum() / 400
    assert plan.spent == pytest.approx(120)
    assert plan.n_treated == 120
    assert brings > 0.97 * best
    assert plan.value.estimate == pytest.approx(best, abs=3 * plan.value.se)
    assert plan.value.lower > 0
    assert plan.over_random.estimate == pytest.approx(best - 0.3 * (0.5 + x.mean()), abs=3 * plan.over_random.se)
    assert 0 <= plan.regret < 0.1 * best
    assert plan.table["rank"].tolist() == list(range(1, 401))
    assert plan.gain_curve.at(0.3)["gain"] == pytest.approx(plan.value.estimate, abs=2e-3)
    assert plan.table["prob_worth"].iloc[0] > 0.99


def test_costs_may_be_a_column_a_function_or_numbers(analysis):
    by_column = target(analysis, budget=100.0, cost="price", n_bootstrap=20)
    by_function = target(analysis, budget=100.0, cost=lambda places: places["price"], n_bootstrap=20)
    by_numbers = target(analysis, budget=100.0, cost=analysis.study.units["price"].to_numpy(), n_bootstrap=20)
    for other in (by_function, by_numbers):
        pd.testing.assert_frame_equal(other.table, by_column.table)
        assert other.value.estimate == by_column.value.estimate
    assert by_column.spent == pytest.approx(100)
    shuffled = analysis.study.units["price"].sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        target(analysis, budget=100.0, cost=shuffled, n_bootstrap=20).table, by_column.table
    )


def test_every_district_gets_its_share(analysis):
    plan = target(analysis, budget=60.0, cost=1.0, constraints={"column": "district", "share": 0.1}, n_bootstrap=20)
    district = analysis.study.units["district"].loc[plan.table.index]
    assert (plan.table["treat"].groupby(district).sum() >= 10).all()
    assert plan.value.estimate <= target(analysis, budget=60.0, cost=1.0, n_bootstrap=20).value.estimate + 0.02


def test_a_tree_is_a_rule_within_the_budget_and_valued_by_other_folds(analysis):
    plan = target(analysis, budget=120.0, cost=1.0, rule="tree", depth=1, n_bootstrap=20)
    assert plan.spent <= 120 + 1e-9
    assert plan.tree.export_text().startswith("x <=")
    assert plan.value.estimate > 0
    assert plan.paragraph().endswith(".")
    assert "The rule: x <=" in plan.paragraph()


def test_no_gain_is_said_to_be_none():
    none = trial(3)
    rng = np.random.default_rng(0)
    study = none.study.replace(units=none.study.units.assign(y=rng.standard_normal(400)))
    X = study.X[["x"]]
    options = {"groups": study.groups, "treatment": study.treatment}
    none.study = study
    none.crossfit = (crossfit_effects(DoublyRobustEffect(random_state=0), X, study.y, progress=False, **options),)
    nuisances = crossfit_nuisances(X, study.y, study.treatment, groups=study.groups, random_state=0)
    none.scores = dr_scores(study.y, study.treatment, nuisances)
    text = target(none, budget=100.0, cost=1.0, n_bootstrap=20).paragraph()
    assert "That interval includes no gain: the trial does not show that targeting helps." in text


def test_files_and_pictures_of_a_plan(analysis, tmp_path):
    plan = target(analysis, budget=120.0, cost=1.0, n_bootstrap=20)
    written = plan.write(tmp_path / "plan")
    names = {"targeting.csv", "gain_curve.png", "targeting.png", "targeting.md"}
    assert {path.name for path in written} == names | ({"targeting.html"} if is_installed("bokeh") else set())
    table = pd.read_csv(tmp_path / "plan" / "targeting.csv")
    assert table["treat"].sum() == pytest.approx(120)
    assert {"lon", "lat", "rank", "effect", "prob_worth", "cost"} <= set(table.columns)
    assert "brings" in (tmp_path / "plan" / "targeting.md").read_text()
    assert plan.plot().get_xlabel() == "budget a head"
    assert "brings" in plan._repr_html_()


def test_places_elsewhere(analysis):
    there = gpd.GeoDataFrame(
        {"x": [2.0, -3.0, 1.0]}, geometry=gpd.points_from_xy([31, 31.1, 31.2], [1, 1, 1]), crs=4326, index=list("abc")
    )
    model, analysis_there = analysis.model, SimpleNamespace(**vars(analysis))
    analysis_there.model = SimpleNamespace(effect=lambda X: model.effect(X[["x"]]))
    analysis_there.places, analysis_there.study = model.effect(there[["x"]]), analysis.study.replace(places=there)
    plan = target(analysis_there, budget=2.0, cost=1.0, n_bootstrap=20)
    assert plan.table.index.tolist() == ["a", "c", "b"]
    assert plan.table["treat"].tolist() == [1, 1, 0]
    assert not plan.notes
    by_place = target(analysis_there, budget=2.0, cost=[1.0, 1.0, 2.0], n_bootstrap=20)
    assert "the value takes their mean" in by_place.paragraph()


def test_what_cannot_be_planned_is_refused(analysis):
    with pytest.raises(ParameterError, match="positive number"):
        target(analysis, budget=0, cost=1.0)
    with pytest.raises(ColumnError, match="no column of the places"):
        target(analysis, budget=1.0, cost="fee")
    with pytest.raises(DataError, match="no positive cost"):
        target(analysis, budget=1.0, cost=np.r_[np.zeros(1), np.ones(399)])
    with pytest.raises(ParameterError, match="'ranking' or 'tree'"):
        target(analysis, budget=1.0, cost=1.0, rule="best")
    with pytest.raises(ParameterError, match="share"):
        target(analysis, budget=1.0, cost=1.0, constraints={"district": 0.1})


def effects_map(path):
    values = np.full((6, 4, 5), 0.5, dtype=np.float32)
    values[0] = np.arange(20).reshape(4, 5) - 5
    values[5] = 1.0
    values[:, 0, 0] = np.nan
    values[5, 3, 4] = 0.01
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=6, height=4, width=5, crs="EPSG:32636", nodata=np.nan,
        transform=rasterio.transform.from_origin(300000, 100000, 500, 500),
    ) as raster:  # fmt: skip
        raster.write(values)
        raster.descriptions = ("cate", "sd", "lower", "upper", "prob_positive", "support")


def test_a_map_of_whom_to_treat(tmp_path):
    effects_map(tmp_path / "effects.tif")
    found = map_policy(tmp_path / "effects.tif", tmp_path / "policy.tif", budget=5.0, cost=2.0, min_support=0.05)
    with rasterio.open(found.path) as raster:
        treat = raster.read(1)
        assert raster.descriptions == ("treat", "net_gain", "prob_positive")
        assert raster.crs == "EPSG:32636"
    assert np.isnan(treat[0, 0])
    assert treat[3].tolist() == [0, 0.5, 1, 1, 0]  # the last cell has no support
    assert (found.n_cells, found.n_treated, found.spent) == (19, 3, pytest.approx(5))
    assert found.gain == pytest.approx(13 + 12 + 11 / 2)
    with pytest.raises(OutputError, match="overwrite"):
        map_policy(tmp_path / "effects.tif", tmp_path / "policy.tif", budget=5.0)
    costs = np.where(np.arange(20).reshape(4, 5) > 15, 100.0, 1.0)
    cheap = map_policy(tmp_path / "effects.tif", tmp_path / "policy.tif", budget=2.0, cost=costs, overwrite=True)
    with rasterio.open(cheap.path) as raster:
        assert np.argwhere(raster.read(1) == 1).tolist() == [[2, 4], [3, 0]]
    with pytest.raises(DataError, match="map of effects"):
        map_policy(found.path, tmp_path / "other.tif", budget=1.0)


def test_names_stand_at_the_top():
    assert causalsat.decisions.target is causalsat.target


def test_people_weigh_places_whose_cost_is_for_the_place_or_for_each(analysis):
    """Village price 12 for 6 or 2 people is 2 or 6 a head; 3 for each person is 18 or 6 a village."""
    units = analysis.study.units.assign(heads=np.where(analysis.study.units["village"] % 2, 6.0, 2.0))
    peopled = SimpleNamespace(**{**vars(analysis), "study": analysis.study.replace(units=units)})
    effects, heads = analysis.posterior.mean(), units["heads"].to_numpy()
    for cost, per, a_head in ((12.0, "place", 12.0 / heads), (3.0, "person", np.full(400, 3.0))):
        plan = target(peopled, budget=600.0, cost=cost, people="heads", cost_per=per, n_bootstrap=20)
        table = plan.table.loc[units.index]
        np.testing.assert_allclose(table["cost"], a_head * heads)
        ranks = (effects / a_head)[np.argsort(table["rank"])]
        assert (np.diff(ranks) <= 1e-12).all()
        assert plan.spent == pytest.approx(600)
        assert plan.heads == heads.sum() == 1600
        paid = table["paid_from"].to_numpy()
        np.testing.assert_array_equal(table["treat"] == 1, paid <= 600 + 1e-9)
    with pytest.raises(DataError, match="no positive number of people"):
        target(peopled, budget=600.0, cost=1.0, people=np.r_[np.zeros(1), np.ones(399)])
    with pytest.raises(ParameterError, match="'place' or 'person'"):
        target(peopled, budget=600.0, cost=1.0, cost_per="head")


def test_as_many_rows_as_people_are_the_same_plan():
    """A place of three people is three places of one, for its effect, cost and part treated."""
    rng = np.random.default_rng(0)
    effects, costs, people = rng.standard_normal(30), rng.uniform(1, 3, 30), rng.integers(1, 4, 30)
    for budget in (0.5, 7.0, 20.0, 1e6):
        once = plan_of(effects, costs, budget, effects > 0, weights=people.astype(float), in_parts=True)
        repeated = [np.repeat(v, people) for v in (effects, costs)]
        many = plan_of(*repeated, budget, repeated[0] > 0, in_parts=True)
        np.testing.assert_allclose(np.repeat(once, people), many, atol=1e-12)


def test_equal_effects_are_valued_in_equal_parts_whatever_the_order_of_rows(analysis):
    study, found = analysis.study, analysis.crossfit[0]
    order = np.random.default_rng(1).permutation(400)
    coarse = SimpleNamespace(tau=np.round(found.tau), fold=found.fold)
    shuffled = SimpleNamespace(tau=coarse.tau[order], fold=coarse.fold[order])
    costs = np.ones(400)
    first = policy_of_units(coarse, costs, 0.3, coarse.tau > 0, None, costs)
    again = policy_of_units(shuffled, costs, 0.3, shuffled.tau > 0, None, costs)
    np.testing.assert_allclose(first[order], again)
    assert first.mean() == pytest.approx(0.3)
    plan = target(analysis, budget=120.0, cost=1.0, n_bootstrap=20)
    assert plan.gain_curve.at(0.3)["gain"] == pytest.approx(plan.value.estimate, abs=2e-3)
    assert len(study) == 400


def test_the_plan_does_not_depend_on_the_order_of_places(analysis):
    there = gpd.GeoDataFrame(
        {"x": np.repeat([0.5, 1.0, 2.0], 10)}, geometry=gpd.points_from_xy(np.arange(30), np.zeros(30)), crs=4326,
        index=[f"p{k:02d}" for k in range(30)],
    )  # fmt: skip
    plans = []
    for places in (there, there.sample(frac=1, random_state=0)):
        given = SimpleNamespace(**{**vars(analysis), "places": analysis.model.effect(places[["x"]])})
        given.study = analysis.study.replace(places=places)
        plans.append(target(given, budget=14.5, cost=1.0, n_bootstrap=20).table)
    pd.testing.assert_frame_equal(*plans)
    repeated = there.set_axis(["p00"] * 30, axis=0)
    given = SimpleNamespace(**vars(analysis))
    given.model = SimpleNamespace(effect=lambda X: analysis.model.effect(X[["x"]]))
    with pytest.raises(DataError, match="index repeats"):
        target(given, budget=3.0, cost=1.0, places=repeated)


def test_budgets_above_everything_and_effects_below_zero(analysis):
    rich = target(analysis, budget=1e9, cost=1.0, n_bootstrap=20)
    assert rich.n_treated == (analysis.posterior.mean() > 0).sum()
    assert rich.spent == rich.n_treated
    assert rich.regret >= 0
    negative = SimpleNamespace(**vars(analysis))
    negative.posterior = SimpleNamespace(
        mean=lambda: -np.ones(400), sd=lambda: np.ones(400), draws=-np.ones((50, 400)) - 0.01 * np.arange(50)[:, None]
    )
    negative.crossfit = (SimpleNamespace(tau=-np.ones(400), fold=analysis.crossfit[0].fold),)
    nobody = target(negative, budget=100.0, cost=1.0, n_bootstrap=20)
    assert (nobody.n_treated, nobody.spent, nobody.regret, nobody.value.estimate) == (0, 0.0, 0.0, 0.0)
    assert "treats 0 of 400 places" in nobody.paragraph()
    assert nobody.table["paid_from"].isna().all()


def test_paid_from_is_the_budget_that_first_treats_a_place():
    rng = np.random.default_rng(3)
    effects, costs, people = rng.standard_normal(25), rng.uniform(1, 3, 25), rng.uniform(1, 5, 25)
    quotas = (np.arange(25) % 5, 0.2)
    paid = paid_from(effects, costs, effects > 0, quotas, people)
    for budget in np.linspace(np.nanmin(paid), np.nanmax(paid) + 1, 9):
        chosen = plan_of(effects, costs, budget, effects > 0, quotas, people)
        np.testing.assert_array_equal(chosen == 1, paid <= budget * (1 + 1e-12))


def test_an_analysis_of_several_arms_is_refused_with_the_pair_to_take(analysis):
    several = SimpleNamespace(
        study=SimpleNamespace(arms={0: "control", 1: "cash", 2: "goats"}), pairs={("cash", "control"): analysis}
    )
    with pytest.raises(ParameterError, match=r"3 arms.*target\(analysis.pairs\[\('cash', 'control'\)\]"):
        target(several, budget=5, cost=1)
