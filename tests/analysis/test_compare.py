import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.analysis import Comparison, compare, describe_effects
from causalsat.analysis.sources import Covariates, read_fold, study_digest, write_fold
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.estimators.meta.learners import TLearnerEffect
from causalsat.evaluation import SpatialBlockCV, crossfit_effects
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError
from causalsat.study import Study

mpl.use("Agg")


def make_study(n_sites=60, per_site=10, seed=0):
    """Effect 1 + x1, x2 noise, x3 a noisy copy of x1; treatment by site."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(n_sites), per_site)
    x1 = rng.normal(size=n_sites)[site]
    table = pd.DataFrame(
        {
            "site": site,
            "x1": x1,
            "x2": rng.normal(size=n_sites)[site] + 0.01 * rng.normal(size=len(site)),
            "x3": x1 + 1.5 * rng.normal(size=n_sites)[site],
            "t": (rng.permutation(n_sites) % 2)[site],
            "lon": 32 + (site % 8) * 0.01,
            "lat": 1 + (site // 8) * 0.01,
        }
    )
    table["tau"] = 1 + table["x1"]
    table["y"] = table["t"] * table["tau"] + 0.5 * rng.normal(size=len(site))
    study = Study(
        table.drop(columns="tau"), outcome="y", treatment="t", cluster="site", covariates=["x1", "x2", "x3"],
        lon="lon", lat="lat", propensity=0.5, name=f"toy {seed}",
    )  # fmt: skip
    return study, table["tau"].to_numpy()


SOURCES = {"signal": Covariates(["x1"]), "noisy": Covariates(["x3"]), "noise": Covariates(["x2"])}


class Counting(DoublyRobustEffect):
    """Counts its fits, and can be told to fail."""

    _transient = ("fits", "fail_after", *DoublyRobustEffect._transient)  # no part of what it computes
    fits = 0
    fail_after = 10**6

    def fit(self, X, y=None, *, treatment=None, groups=None, propensity=None):
        if type(self).fits >= type(self).fail_after:
            raise KeyboardInterrupt("killed")
        type(self).fits += 1
        return super().fit(X, y, treatment=treatment, groups=groups, propensity=propensity)


@pytest.fixture
def counting():
    Counting.fits, Counting.fail_after = 0, 10**6
    return Counting


@pytest.fixture(scope="module")
def found():
    study, tau = make_study()
    models = {"DR": DoublyRobustEffect(), "T": TLearnerEffect(n_bootstrap=10)}
    return compare(study, SOURCES, models, truth=tau, fold_seeds=(0, 1), n_bootstrap=50, progress=False)


def test_the_table_ranks_sources_as_the_truth_does(found):
    assert len(found.rows) == 3 * 2 * 2 * 7
    for model in ("DR", "T"):
        auto, pehe = found.table("autoc")[model], found.table("sqrt_pehe")[model]
        assert list(auto.sort_values(ascending=False).index) == ["signal", "noisy", "noise"]
        assert pehe["signal"] < 0.25 < pehe["noise"]
        assert found.table("correlation").loc["signal", model] > 0.98
    slope = found.to_dataframe("blp_slope").set_index(["source", "model"])["value"]
    assert slope["signal", "DR"] == pytest.approx(1, abs=0.15)
    ratios = found.to_dataframe("rate_ratio")
    assert (ratios["se"] == 1).all()
    assert ratios["n"].tolist() == [2] * 6
    assert found.to_dataframe("sqrt_pehe")["se"].isna().all()
    assert "signal" in str(found)


def test_effects_are_those_of_crossfit_effects(found):
    study, _ = make_study()
    own = crossfit_effects(
        DoublyRobustEffect(), study.X[["x1"]], study.y, treatment=study.treatment, groups=study.groups,
        propensity=study.propensity, random_state=1, progress=False,
    )  # fmt: skip
    judged = found.effects["signal", "DR"][1]
    np.testing.assert_array_equal(judged.fold, own.fold)
    np.testing.assert_allclose(judged.tau, own.tau, atol=1e-12)
    np.testing.assert_allclose(judged.sd, own.sd, atol=1e-12)


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(tmp_path, counting):
    study, _ = make_study(n_sites=24)
    run = {"metrics": ["autoc"], "cv": 3, "n_bootstrap": 10, "progress": False}
    whole = compare(study, SOURCES, {"DR": counting()}, **run)
    assert counting.fits == 9
    counting.fits, counting.fail_after = 0, 5
    with pytest.raises(KeyboardInterrupt, match="killed"):
        compare(study, SOURCES, {"DR": counting()}, folder=tmp_path, **run)
    assert len(list(tmp_path.glob("*.npy"))) == 5
    counting.fits, counting.fail_after = 0, 10**6
    resumed = compare(study, SOURCES, {"DR": counting()}, folder=tmp_path, **run)
    assert counting.fits == 4
    pd.testing.assert_frame_equal(resumed.rows, whole.rows)
    assert not list(tmp_path.glob("*.tmp"))


def test_only_what_is_new_or_damaged_is_computed(tmp_path, counting):
    study, _ = make_study(n_sites=24)
    run = {"metrics": ["autoc"], "cv": 3, "n_bootstrap": 10, "folder": tmp_path, "progress": False}
    first = {"noise": SOURCES["noise"]}
    compare(study, first, {"DR": counting()}, **run)
    counting.fits = 0
    compare(study, SOURCES, {"another name": counting()}, **run)
    assert counting.fits == 6
    counting.fits = 0
    next(iter(sorted(tmp_path.glob("*.npy")))).write_bytes(b"half")
    compare(study, SOURCES, {"DR": counting()}, **run)
    assert counting.fits == 1
    counting.fits = 0
    changed = study.units.copy()
    changed.loc[changed.index[0], "y"] += 1
    compare(study.replace(units=changed), first, {"DR": counting()}, **run)
    compare(study, first, {"DR": counting(n_draws=999)}, **run)
    assert counting.fits == 6


def test_functions_and_classes_are_told_apart_in_the_folder(tmp_path):
    from sklearn.preprocessing import FunctionTransformer

    class Column(Covariates):
        def transform(self, X):
            return X[["x1"]] * 1.0

    edited = type("Column", (Covariates,), {"transform": lambda self, X: X[["x2"]] * 1.0})
    study, tau = make_study(n_sites=24)
    run = {"models": [DoublyRobustEffect()], "metrics": ["correlation"], "truth": tau, "cv": 3, "progress": False}
    pairs = {
        "functions": [FunctionTransformer(lambda X: X[["x1"]]), FunctionTransformer(lambda X: X[["x2"]])],
        "classes": [Column(["x1"]), edited(["x1"])],
    }
    for name, (signal, noise) in pairs.items():
        kept = [
            compare(study, {"s": s}, folder=tmp_path / name, **run).rows["value"].iloc[0] for s in (signal, noise)
        ]
        new = [compare(study, {"s": s}, **run).rows["value"].iloc[0] for s in (signal, noise)]
        assert kept == new
        assert kept[0] > 0.9
        assert kept[1] < 0.5


def test_what_cannot_be_told_apart_is_refused_where_results_are_kept(tmp_path):
    import threading

    class Locked(Covariates):
        def __init__(self, columns, lock=None):
            super().__init__(columns)
            self.lock = lock

        def __sklearn_clone__(self):
            return self

    study, _ = make_study(n_sites=24)
    source = Locked(["x1"], threading.Lock())
    run = {"models": [DoublyRobustEffect()], "metrics": ["autoc"], "cv": 3, "n_bootstrap": 5, "progress": False}
    assert len(compare(study, {"s": source}, **run).rows) == 1
    with pytest.raises(ParameterError, match=r"lock is a _thread\.lock"):
        compare(study, {"s": source}, folder=tmp_path, **run)


def test_strata_are_a_part_of_the_key():
    study, _ = make_study(n_sites=24)
    units = study.units.assign(block=np.asarray(study.groups) % 2)
    with_strata = study.replace(units=units, strata="block")
    assert study_digest(with_strata) != study_digest(with_strata.replace(strata=None))


class Failing(DoublyRobustEffect):
    """Fails where the first column is named ``x2``."""

    def fit(self, X, y=None, **roles):
        if X.columns[0] == "x2":
            raise ValueError("x2 is not for me\nand more")
        return super().fit(X, y, **roles)


def test_one_failing_model_does_not_end_the_rest(tmp_path):
    import matplotlib.pyplot as plt

    study, _ = make_study(n_sites=24)
    run = {"metrics": ["autoc", "blp_slope"], "cv": 3, "n_bootstrap": 10, "fold_seeds": (0, 1), "progress": False}
    models = {"fails": Failing(), "works": DoublyRobustEffect()}
    with pytest.warns(DataWarning, match=r"source 'noise' with model 'fails' failed in fold 0 of 3, fold seed 1"):
        out = compare(study, SOURCES, models, folder=tmp_path, **run)
    alone = compare(study, SOURCES, {"works": DoublyRobustEffect()}, **run)
    working = out.rows[out.rows["model"] == "works"].reset_index(drop=True)
    pd.testing.assert_frame_equal(working, alone.rows)
    failed = out.rows[out.rows["error"] != ""]
    assert set(zip(failed["source"], failed["model"], strict=True)) == {("noise", "fails")}
    assert failed["value"].isna().all()
    assert (failed["error"].str.endswith("ValueError: x2 is not for me")).all()
    table = out.to_dataframe("autoc").set_index(["source", "model"])
    assert "x2 is not for me" in table.loc[("noise", "fails"), "error"]
    assert (table.drop(index=[("noise", "fails")])["error"] == "").all()
    assert table.loc[("noise", "fails"), "n"] == 0
    assert np.isnan(table.loc[("noise", "fails"), "difference"])
    assert "failed" in str(out)
    assert "noise, fails: fold 0 of 3, fold seed 0: ValueError: x2 is not for me" in str(out)
    assert out.effects["noise", "fails"] == []
    assert out.drivers("autoc").attrs["n"] == 5
    with pytest.raises(DataError, match="failed in every fold seed"):
        out.quintiles("noise", "fails")
    ax = out.plot("autoc")
    assert [t.get_text() for t in ax.texts] == ["failed"]
    plt.close(ax.figure)


def test_where_everything_fails_the_first_error_is_raised():
    study, _ = make_study(n_sites=24)
    run = {"models": [Failing()], "metrics": ["autoc"], "cv": 3, "n_bootstrap": 5, "progress": False}
    with pytest.warns(DataWarning), pytest.raises(ValueError, match="not for me") as caught:
        compare(study, {"noise": SOURCES["noise"]}, **run)
    assert "fold 0 of 3, fold seed 0" in caught.value.__notes__[0]

    def broken(judged):
        return 1 / 0

    run["metrics"] = ["autoc", broken]
    with pytest.raises(ZeroDivisionError):
        compare(study, {"signal": SOURCES["signal"]}, **run)


def test_the_order_of_the_rows_moves_nothing():
    study, tau = make_study(n_sites=24)
    order = np.random.default_rng(5).permutation(len(study))
    run = {"models": [DoublyRobustEffect()], "cv": 3, "n_bootstrap": 20, "progress": False}
    first = compare(study, SOURCES, truth=tau, **run).to_dataframe()
    second = compare(study.replace(units=study.units.iloc[order]), SOURCES, truth=tau[order], **run).to_dataframe()
    pd.testing.assert_frame_equal(first, second, rtol=1e-6, atol=1e-9)


def test_outcomes_of_a_held_out_fold_move_nothing_that_is_predicted_for_it():
    study, _ = make_study(n_sites=24)
    run = {"models": [DoublyRobustEffect()], "metrics": ["autoc"], "cv": 3, "n_bootstrap": 5, "progress": False}
    run |= {"sources": {"signal": SOURCES["signal"]}, "scores": np.arange(float(len(study)))}
    before = compare(study, **run).effects["signal", "DoublyRobustEffect"][0]
    changed = study.units.copy()
    changed.loc[before.fold == 1, "y"] *= -50
    after = compare(study.replace(units=changed), **run).effects["signal", "DoublyRobustEffect"][0]
    np.testing.assert_array_equal(after.fold, before.fold)
    np.testing.assert_array_equal(after.tau[after.fold == 1], before.tau[before.fold == 1])
    assert not np.allclose(after.tau[after.fold != 1], before.tau[before.fold != 1])


def test_pairs_are_clusters_of_every_metric():
    """A study whose sites are paired: standard errors are those of the design, as in an analysis."""
    from causalsat.evaluation import blp, rate

    study, _ = make_study(n_sites=40)
    units = study.units.copy()
    units["pair"] = units["site"] // 2
    units["t"] = (units["site"] + units["pair"] % 2) % 2
    paired = study.replace(units=units, strata="pair")
    run = {"models": [DoublyRobustEffect(n_splits=2)], "metrics": ["autoc", "blp_slope"], "cv": 2, "progress": False}
    out = compare(paired, {"signal": SOURCES["signal"]}, n_bootstrap=50, **run)
    judged = out.effects["signal", "DoublyRobustEffect"][0]
    table = out.to_dataframe().set_index("metric")
    options = {"folds": judged.fold, "design": paired.design}
    assert table.loc["blp_slope", "se"] == pytest.approx(blp(judged.tau, judged.scores, **options).slope_se)
    own = rate(judged.tau, judged.scores, n_bootstrap=50, random_state=0, **options)
    assert table.loc["autoc", "se"] == pytest.approx(own.se)
    assert len(np.unique(judged.clusters)) == 20


class Buffered:
    """Folds by site that leave a third of the other sites out of training."""

    def __init__(self):
        self.left_out = {}

    def split(self, X, y=None, groups=None):
        group = np.asarray(groups)
        for k in range(3):
            test = np.flatnonzero(group % 3 == k)
            left = np.flatnonzero((group % 3 != k) & (group // 3 % 3 == k))
            self.left_out[k] = left
            yield np.setdiff1d(np.arange(len(group)), np.concatenate([test, left])), test


def test_rows_that_a_splitter_leaves_out_do_not_enter_a_fit():
    study, _ = make_study(n_sites=36)
    cv = Buffered()
    run = {"sources": {"signal": SOURCES["signal"]}, "models": [DoublyRobustEffect()], "metrics": ["autoc"], "cv": cv}
    run |= {"n_bootstrap": 5, "progress": False, "scores": np.zeros(len(study))}
    before = compare(study, **run).effects["signal", "DoublyRobustEffect"][0]
    assert (before.fold == np.asarray(study.groups) % 3).all()
    for k in range(3):
        units = study.units.copy()
        units.loc[units.index[cv.left_out[k]], "y"] += 1000.0
        after = compare(study.replace(units=units), **run).effects["signal", "DoublyRobustEffect"][0]
        np.testing.assert_array_equal(after.tau[after.fold == k], before.tau[before.fold == k])
        assert not np.allclose(after.tau[after.fold != k], before.tau[before.fold != k])


def test_several_fold_seeds_move_a_splitters_folds():
    study, _ = make_study(n_sites=24)
    run = {"sources": {"signal": SOURCES["signal"]}, "models": [DoublyRobustEffect()], "metrics": ["autoc"]}
    run |= {"n_bootstrap": 5, "progress": False, "fold_seeds": (0, 1)}
    first, second = compare(study, cv=SpatialBlockCV(2500, n_splits=3), **run).effects["signal", "DoublyRobustEffect"]
    assert (first.fold != second.fold).any()
    with pytest.raises(ParameterError, match="do not depend on a seed"):
        compare(study, cv=Buffered(), **run)


def test_sources_are_fitted_on_training_folds_only():
    seen = []

    class Spy(Covariates):
        def fit(self, X, y=None):
            seen.append(set(X.index))
            return super().fit(X)

    study, _ = make_study(n_sites=24)
    out = compare(study, [Spy(["x1"])], [DoublyRobustEffect()], ["autoc"], cv=3, n_bootstrap=5, progress=False)
    fold = out.effects["Spy", "DoublyRobustEffect"][0].fold
    everyone = np.asarray(study.X.index)
    assert seen == [set(everyone[fold != k]) for k in range(3)]
    groups = np.asarray(study.groups)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in np.unique(groups))


def test_splitters_and_functions_as_metrics():
    study, tau = make_study(n_sites=24)

    def spread(judged):
        return judged.tau.std(), 0.25

    out = compare(
        study, {"signal": SOURCES["signal"]}, [DoublyRobustEffect()], [spread, "sqrt_pehe"], truth=tau,
        cv=SpatialBlockCV(2500, n_splits=3), n_bootstrap=5, progress=False,
    )  # fmt: skip
    rows = out.rows.set_index("metric")
    assert rows.loc["spread", "value"] == pytest.approx(1, abs=0.4)
    assert rows.loc["spread", "se"] == 0.25


# ---------------------------------------------------------------------- what drives it
def additive(noise=0.0, studies=1, seeds=4):
    rng = np.random.default_rng(0)
    effect = {"a": 0.0, "b": 1.0, "c": 2.0, "M": 0.0, "N": -0.5}
    rows = [
        {"study": f"s{k}", "source": s, "model": m, "seed": j, "metric": "autoc", "se": 0.1,
         "value": 3 + effect[s] + effect[m] + 0.1 * k + noise * rng.normal()}
        for k in range(studies) for s in "abc" for m in "MN" for j in range(seeds)
    ]  # fmt: skip
    return Comparison(pd.DataFrame(rows), {}, pd.DataFrame())


def test_drivers_recover_additive_contributions_over_studies():
    table = additive(noise=0.02, studies=12).drivers("autoc")
    assert table.index.tolist() == [
        "constant",
        "source=b",
        "source=c",
        "model=N",
        *(f"study=s{k}" for k in range(1, 12)),
    ]
    np.testing.assert_allclose(table["estimate"].iloc[:4], [3.55, 1, 2, -0.5], atol=0.04)
    assert (table["lower"] < table["upper"])[:4].all()
    assert table.attrs["clusters"] == 12
    assert table.attrs["errors"] == "studies"
    assert table.loc["study=s5", "estimate"] == pytest.approx(0.5, abs=0.06)
    assert table.loc["study=s5":, ["se", "p_value"]].isna().all(axis=None)
    numbers = {"source": {"a": {"dates": 1}, "b": {"dates": 2}, "c": {"dates": 3}}}
    by_number = additive(noise=0.02, studies=12).drivers("autoc", numbers)
    assert by_number.loc["source dates", "estimate"] == pytest.approx(1, abs=0.05)
    with pytest.raises(ParameterError, match="no attributes"):
        additive().drivers("autoc", {"source": {"a": {"dates": 1}}})
    with pytest.raises(ParameterError, match="metric"):
        additive().drivers("speed")


def test_over_studies_a_driver_is_the_t_test_of_the_studies_own_differences():
    from scipy.stats import ttest_1samp

    comparison = additive(noise=0.5, studies=12, seeds=2)
    cells = comparison.rows.groupby(["study", "source", "model"])["value"].mean().unstack(["source", "model"])
    gap = (cells["b"] - cells["a"]).mean(axis=1)
    row = comparison.drivers("autoc").loc["source=b"]
    assert row["estimate"] == pytest.approx(gap.mean())
    assert row["se"] == pytest.approx(gap.std() / np.sqrt(12))
    assert row["p_value"] == pytest.approx(ttest_1samp(gap, 0).pvalue)
    pair = cells["b", "M"] - cells["a", "M"]
    difference = comparison.differences("autoc").loc[("b", "M")]
    assert difference["difference"] == pytest.approx(pair.mean())
    assert difference["p_value"] == pytest.approx(ttest_1samp(pair, 0).pvalue)


def test_too_few_clusters_are_refused():
    with pytest.raises(DataError, match=r"1 studies for 4 parameters.*at least 9 studies"):
        additive(seeds=20).drivers("autoc")
    with pytest.raises(DataError, match="6 studies for 4 parameters"):
        additive(studies=6).drivers("autoc")
    study, tau = make_study(n_sites=8)
    models = {"DR": DoublyRobustEffect(n_splits=2), "T": TLearnerEffect(n_bootstrap=2)}
    run = {"metrics": ["autoc"], "cv": 2, "n_bootstrap": 20, "scores": tau, "progress": False}
    with pytest.raises(DataError, match="8 effective clusters for 4 parameters"):
        compare(study, SOURCES, models, **run).drivers("autoc")
    alike = {name: {"x": k, "twice x": 2 * k} for k, name in enumerate("abc")}
    with pytest.raises(DataError, match=r"3 columns .* only 2"):
        additive(studies=12).drivers("autoc", {"source": alike, "model": {"M": {"z": 1}, "N": {"z": 2}}})


def test_two_sources_and_one_model_have_drivers(found):
    rows = found.rows[found.rows["source"].isin(["signal", "noise"]) & (found.rows["model"] == "DR")]
    two = Comparison(rows, {}, found.seconds, None, found.replicates)
    table = two.drivers("autoc")
    assert table.index.tolist() == ["constant", "source=noise"]
    gap = two.differences("autoc").loc[("noise", "DR")]
    assert table.loc["source=noise", "estimate"] == pytest.approx(gap["difference"])
    assert table.loc["source=noise", "p_value"] == pytest.approx(gap["p_value"])
    assert gap["p_value"] < 1e-4


def test_fold_seeds_are_no_replicates(found):
    """The same seed given five times changes neither a standard error nor a p-value."""
    study, _ = make_study(n_sites=24)
    run = {"models": [DoublyRobustEffect()], "metrics": ["autoc"], "cv": 3, "n_bootstrap": 50, "progress": False}
    one = compare(study, SOURCES, fold_seeds=(0,), **run)
    rows = pd.concat([one.rows.assign(seed=k) for k in range(5)], ignore_index=True)
    five = Comparison(rows, {}, one.seconds, study, one.replicates)
    pd.testing.assert_frame_equal(one.drivers("autoc"), five.drivers("autoc"))
    pd.testing.assert_frame_equal(one.differences("autoc"), five.differences("autoc"))


def test_differences_are_paired_on_half_samples_of_clusters(found):
    from causalsat.evaluation import rate

    table = found.differences("autoc")
    assert table.loc[("signal", "DR"), "difference"] == 0
    assert np.isnan(table.loc[("signal", "DR"), "p_value"])
    pairs = []
    for seed in (0, 1):
        judged = [found.effects[s, "DR"][seed] for s in ("noisy", "signal")]
        first, second = (
            rate(j.tau, j.scores, groups=j.groups, folds=j.fold, n_bootstrap=50, random_state=0) for j in judged
        )
        pairs.append(first - second)
    row = table.loc[("noisy", "DR")]
    assert row["difference"] == pytest.approx(np.mean([p.estimate for p in pairs]))
    draws = np.mean([p.replicates for p in pairs], axis=0)
    assert row["se"] == pytest.approx(np.sqrt(2) * draws.std(ddof=1))
    shown = found.to_dataframe("autoc").set_index(["source", "model"])
    assert shown.loc[("noisy", "DR"), "difference_se"] == pytest.approx(row["se"])
    assert found.differences("autoc", ("noise", "T")).loc[("signal", "DR"), "difference"] > 0.5
    assert found.differences("sqrt_pehe")["se"].isna().all()
    assert found.differences("blp_slope")["p_value"].isna().all()  # a ratio, whose mean is not zero under the null
    assert found.differences("blp_slope")["se"].notna().sum() == 5
    assert found.drivers("autoc")["p_value"].isna().tolist() == [True, False, False, False]
    for metric in ("blp_slope", "gates_difference"):  # half-samples agree with the metric's own standard error
        own = found.to_dataframe(metric).set_index(["source", "model"])["se"]
        for (_, *cell, name), repeated in found.replicates.items():
            if name == metric:
                assert repeated.values.std(ddof=1) == pytest.approx(own[tuple(cell)], rel=0.4)
    with pytest.raises(ParameterError, match="reference"):
        found.differences("autoc", ("signal", "X"))


def test_the_standard_error_over_studies_is_that_of_their_mean():
    joined = additive(studies=3, seeds=1).to_dataframe("autoc")
    assert joined["value"].iloc[0] == pytest.approx(3.1)
    assert joined["se"].iloc[0] == pytest.approx(0.1 / np.sqrt(3))
    one = additive(studies=1).to_dataframe("autoc")
    assert one["se"].iloc[0] == pytest.approx(0.1)


def test_joined_comparisons_keep_their_studies_apart(found):
    other = found.join(found)
    assert other.rows["study"].nunique() == 2
    assert len(other.rows) == 2 * len(found.rows)
    with pytest.raises(ParameterError, match="source="):
        other.quintiles("signal", "DR")


# ---------------------------------------------------------------------- description of groups
@pytest.fixture(scope="module")
def trial():
    from causalsat.simulate import satellite_trial

    return satellite_trial("smooth", n_units=400, n_sites=44, size_px=320, seed=2)


def test_quintiles_are_described_by_indices_and_land_cover(trial):
    study = trial.study()
    from causalsat.imagery import open_imagery

    forest = (trial.landscape.ndvi() > 0.5).astype(np.float32)
    cover = open_imagery(trial.landscape.grid(forest[None], "cover").assign_coords(band=["class"]), name="cover")
    tau = trial.units["tau"].to_numpy()
    table = describe_effects(
        study, tau, scores=tau, indices=["ndvi", "ndbi"], land_cover=cover, classes={1: "forest"}, size_m=960
    )
    assert table.index.tolist() == ["1", "2", "3", "4", "5", "highest - lowest", "se"]
    assert table["n"].iloc[:5].sum() == 400
    np.testing.assert_allclose(table["effect"].iloc[:5], table["predicted"].iloc[:5])
    chips = study.imagery.chips(study.X.geometry, size_m=960)
    ndvi = ((chips.sel(band="nir") - chips.sel(band="red")) / (chips.sel(band="nir") + chips.sel(band="red"))).mean(
        ("y", "x")
    )
    lowest = np.argsort(tau, kind="stable")[:80]
    assert table.loc["1", "ndvi"] == pytest.approx(float(ndvi[lowest].mean()), rel=1e-5)
    assert table.loc["highest - lowest", "forest"] < -0.05  # the effect falls with dense vegetation
    assert table.loc["highest - lowest", "ndvi"] == pytest.approx(table.loc["5", "ndvi"] - table.loc["1", "ndvi"])
    assert 0 < table.loc["se", "ndvi"] < abs(table.loc["highest - lowest", "ndvi"])


def test_bad_descriptions_are_refused(trial):
    study = trial.study()
    with pytest.raises(DataError, match="finite"):
        describe_effects(study, [1.0])
    with pytest.raises(ParameterError, match="n_groups"):
        describe_effects(study, trial.units["tau"], n_groups=1)
    with pytest.raises(causalsat.exceptions.ImageryError, match="classes"):
        describe_effects(study, trial.units["tau"], indices=(), land_cover=study.imagery)


def test_imagery_and_both_are_encoded_by_the_default_model(trial):
    study = trial.study()
    out = compare(study, ["imagery", "both"], [DoublyRobustEffect()], ["autoc"], cv=2, n_bootstrap=5, progress=False)
    assert out.rows["source"].tolist() == ["imagery", "both"]
    assert not np.allclose(*(out.effects[s, "DoublyRobustEffect"][0].tau for s in ("imagery", "both")))
    assert "ndvi" in out.quintiles("imagery", "DoublyRobustEffect").columns


def test_images_from_after_the_treatment_are_refused(trial):
    study = trial.study()
    late = study.replace(treatment_date=str(trial.landscape.dates[0]))
    run = {"models": [DoublyRobustEffect()], "metrics": ["autoc"], "cv": 2, "n_bootstrap": 5, "progress": False}
    assert len(study.imagery.dates) == 1
    with pytest.raises(causalsat.exceptions.ImageryError, match="images_before"):
        compare(late, ["covariates", "imagery"], **run)
    assert len(compare(late, ["covariates"], **run).rows) == 1


# ---------------------------------------------------------------------- refusals and picture
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sources": ["tables"]}, ParameterError, "tables"),
        ({"sources": [3.0]}, ParameterError, "float"),
        ({"sources": []}, ParameterError, "no sources"),
        ({"sources": [Covariates(["x9"])]}, ColumnError, "x9"),
        ({"models": ["lm"]}, ParameterError, "effect estimator"),
        ({"metrics": ["auc"]}, ParameterError, "auc"),
        ({"metrics": ["sqrt_pehe"]}, ParameterError, "truth"),
        ({"truth": [1.0]}, DataError, "truth"),
        ({"cv": "five"}, ParameterError, "cv"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, error, words):
    study, _ = make_study(n_sites=24)
    with pytest.raises(error, match=words):
        compare(study, **{"models": [DoublyRobustEffect()], "sources": [SOURCES["noise"]], **options}, progress=False)


def test_the_plot_shows_a_dot_a_combination(found):
    import matplotlib.pyplot as plt

    ax = found.plot("autoc")
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_label() for line in dots] == ["DR", "T"]
    shown = found.table("autoc")
    np.testing.assert_allclose(dots[0].get_xdata(), shown["DR"])
    assert [t.get_text() for t in ax.get_yticklabels()] == list(shown.index)
    plt.close(ax.figure)


def test_a_fold_of_other_values_or_under_another_name_is_not_taken(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    write_fold(tmp_path, "a", values)
    np.testing.assert_array_equal(read_fold(tmp_path, "a", 3), values)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(whole)  # another fold's
    np.save(tmp_path / "c.npy", values)  # nobody's
    (tmp_path / "d.npy").write_bytes(whole[:130] + b"\x01" + whole[131:])  # another value
    assert all(read_fold(tmp_path, key, 3) is None for key in "bcd")
