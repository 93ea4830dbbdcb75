"""A simulated trial's truth: effects, assignment, outcomes, and what each variant promises."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.exceptions import ParameterError
from causalsat.simulate import moderators, satellite_trial
from causalsat.simulate.fields import box_mean

SMALL = {"n_units": 600, "n_sites": 60, "size_px": 384}


@pytest.fixture(scope="module")
def trial():
    return satellite_trial(seed=7, **SMALL)


@pytest.fixture(scope="module")
def change():
    return satellite_trial("change", seed=0, **SMALL)


def pixels(points, trial):
    inverse = ~trial.tau_map.rio.transform()
    cols, rows = inverse * (points.x.to_numpy(), points.y.to_numpy())
    return np.floor(rows).astype(int), np.floor(cols).astype(int)


def difference_in_means(units):
    y, t = units["outcome"].to_numpy(), units["treatment"].to_numpy()
    return y[t == 1].mean() - y[t == 0].mean()


@pytest.mark.parametrize("variant", ["smooth", "scene_types", "none", "change", "confounded", "kernel"])
def test_effect_of_units_and_places_is_the_map_at_their_pixel(variant):
    trial = satellite_trial(variant, seed=2, n_units=90, n_sites=20, size_px=256)
    for frame in (trial.units, trial.places):
        rows, cols = pixels(frame.geometry, trial)
        np.testing.assert_array_equal(frame["tau"], trial.tau_map.values[rows, cols])
        assert frame.crs == trial.imagery.rio.crs
    assert trial.tau_map.shape == trial.imagery.shape[-2:]
    assert trial.tau_map.rio.transform() == trial.imagery.rio.transform()
    assert np.isfinite(trial.tau_map.values).all()


def test_effect_is_a_function_of_the_chips_pixels(trial):
    """Recompute the moderator from the image's own chips, one by one."""
    image = trial.imagery.values * 1e-4
    names = list(trial.imagery.band.values)
    rows, cols = trial.landscape.settlements.T
    inside = (rows >= 16) & (rows <= 384 - 16) & (cols >= 16) & (cols <= 384 - 16)

    def from_chip(row, col):
        chip = image[:, row - 16 : row + 16, col - 16 : col + 16]
        blue, red, nir = (chip[names.index(b)] for b in ("blue", "red", "nir"))
        built = np.sqrt(np.maximum(blue - 0.10, 0).mean() + 1e-3)
        return built, np.maximum((nir - red) / (nir + red) - 0.5, 0).mean()

    parts = np.array([from_chip(r, c) for r, c in zip(rows[inside], cols[inside], strict=True)])
    design = np.column_stack([np.ones(len(parts)), parts])
    tau = trial.tau_map.values[rows[inside], cols[inside]]
    coefficients, *_ = np.linalg.lstsq(design, tau, rcond=None)
    np.testing.assert_allclose(design @ coefficients, tau, atol=1e-9)
    assert coefficients[1] > 0 > coefficients[2]


def test_effects_have_the_mean_and_spread_asked_for():
    trial = satellite_trial(tau_mean=1.5, tau_sd=0.25, seed=1, n_units=100, n_sites=20, size_px=256)
    at = tuple(trial.landscape.settlements.T)
    assert trial.tau_map.values[at].mean() == pytest.approx(1.5)
    assert trial.tau_map.values[at].std() == pytest.approx(0.25)


def test_outcome_is_made_of_its_parts(trial):
    units = trial.units
    noise = units["outcome"] - units["mu0"] - units["treatment"] * units["tau"]
    for arm, sd in enumerate(trial.settings.noise_sd):
        arm_noise = noise[units["treatment"] == arm]
        assert arm_noise.mean() == pytest.approx(0, abs=4 * sd / np.sqrt(len(arm_noise)))
        assert arm_noise.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * len(arm_noise)))
    village = (units["mu0"] - units["baseline"]).groupby(units["site"])
    assert village.nunique(dropna=False).max() <= 12  # one effect a village, but for rounding
    assert village.std().max() < 1e-12
    assert village.first().std() == pytest.approx(trial.settings.site_sd, rel=4 / np.sqrt(2 * 60))


def test_truth_holds_the_average_effects(trial):
    assert trial.truth["ate"] == pytest.approx(trial.units["tau"].mean())
    assert trial.truth["ate_places"] == pytest.approx(trial.places["tau"].mean())
    assert trial.truth["chip_m"] == 960.0


def test_assignment_is_by_site_and_balanced_in_strata(trial):
    sites = trial.units.groupby("site")
    assert (sites["treatment"].nunique() == 1).all()
    assert (sites["district"].nunique() == 1).all()
    assert (sites.geometry.nunique() == 1).all()
    per_stratum = sites[["treatment", "district"]].first().groupby("district")["treatment"].agg(["sum", "count"])
    assert len(per_stratum) > 1
    assert (2 * per_stratum["sum"] - per_stratum["count"]).abs().max() <= 1
    assert (trial.units["propensity"] == 0.5).all()


def test_sites_lie_in_the_trial_region_and_places_outside(trial):
    assert trial.units.geometry.within(trial.region).all()
    assert not trial.places.geometry.within(trial.region).any()
    assert trial.units["site"].nunique() == 60
    assert len(trial.units) == 600
    assert 0.5 < trial.region.area / (384 * 30) ** 2 < 0.75


def test_difference_in_means_is_unbiased_in_the_trial(trial):
    estimates = np.array([difference_in_means(trial.draw_outcomes(seed).units) for seed in range(300)])
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - trial.truth["ate"]) < 4 * error
    assert abs(trial.truth["naive_bias"]) < 1e-9


def test_difference_in_means_is_biased_as_stated_under_confounding():
    trial = satellite_trial("confounded", seed=3, **SMALL)
    estimates = np.array([difference_in_means(trial.draw_outcomes(seed).units) for seed in range(300)])
    error = estimates.std() / np.sqrt(len(estimates))
    assert trial.truth["naive_bias"] > 0.2
    # the stated bias is a ratio of expectations; the difference in means an expectation of ratios
    assert abs(estimates.mean() - trial.truth["ate"] - trial.truth["naive_bias"]) < 4 * error + 0.02
    sites = trial.units.groupby("site")
    assert (sites["treatment"].nunique() == 1).all()
    rows, cols = pixels(sites.geometry.first(), trial)
    green = moderators.greenness(trial.landscape, 32)[rows, cols]
    order = np.argsort(green)
    assert (np.diff(sites["propensity"].first().to_numpy()[order]) >= 0).all()
    assert trial.units["propensity"].between(0.05, 0.95).all()


def test_no_heterogeneity_means_none():
    trial = satellite_trial("none", tau_mean=0.3, seed=1, n_units=100, n_sites=20, size_px=256)
    assert trial.units["tau"].std() < 1e-15
    assert np.ptp(trial.tau_map.values) == 0
    assert trial.truth["ate"] == pytest.approx(0.3)


def test_scene_types_have_two_effects_that_follow_the_label():
    trial = satellite_trial("scene_types", seed=4, tau_mean=0.4, tau_sd=0.5, **SMALL)
    assert trial.units.groupby("scene")["tau"].unique().map(lambda v: np.round(v, 12).tolist()).to_dict() == {
        0: [-0.1],
        1: [0.9],
    }
    assert trial.places.groupby("scene")["tau"].nunique().to_dict() == {0: 1, 1: 1}


def test_scene_types_can_be_told_apart_in_the_image():
    """Means and spreads of the bands over the chip separate the types, at places that are wholly of one."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_score

    land = satellite_trial("scene_types", seed=4, n_units=60, n_sites=60, size_px=512).landscape
    at = tuple(land.settlements.T)
    bands = [land.band(name) for name in land.bands] + [land.ndvi()]
    means = [box_mean(band, 32) for band in bands]
    spreads = [box_mean(band**2, 32) - mean**2 for band, mean in zip(bands, means, strict=True)]
    features = np.column_stack([surface[at] for surface in means + spreads])
    share = box_mean(land.scene.astype(float), 32)[at]
    pure = (share < 0.05) | (share > 0.95)
    accuracy = cross_val_score(LinearDiscriminantAnalysis(), features[pure], share[pure] > 0.5, cv=5)
    assert accuracy.mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_change_is_seen_between_the_dates_and_in_neither(seed):
    trial = satellite_trial("change", seed=seed, n_units=600, n_sites=60, size_px=512)
    land, rows_cols = trial.landscape, tuple(trial.landscape.settlements.T)
    tau = trial.tau_map.values[rows_cols]
    single = {}
    for date in (0, 1):
        ndvi, blue = land.ndvi(date), land.band("blue", date)
        single[f"ndvi{date}"] = box_mean(ndvi, 32)
        single[f"texture{date}"] = box_mean(ndvi**2, 32) - box_mean(ndvi, 32) ** 2
        single[f"blue{date}"] = box_mean(blue, 32)
    seen = {name: np.corrcoef(values[rows_cols], tau)[0, 1] for name, values in single.items()}
    assert max(abs(seen["ndvi0"]), abs(seen["ndvi1"])) < 0.1, seen
    # chance correlations of two smooth fields over some 250 places have a standard deviation of about 0.07
    assert max(abs(r) for r in seen.values()) < 0.2, seen
    assert np.corrcoef((single["ndvi1"] - single["ndvi0"])[rows_cols], tau)[0, 1] > 0.999
    assert trial.imagery.dims == ("time", "band", "y", "x")


def test_covariates_are_missing_in_part_and_follow_the_landscape():
    trial = satellite_trial(seed=5, n_units=4000, n_sites=100, size_px=512)
    units = trial.units
    assert units["schooling"].isna().mean() == pytest.approx(0.06, abs=0.02)
    assert units["assets"].isna().mean() == pytest.approx(0.10, abs=0.03)
    assert units.drop(columns=["schooling", "assets"]).notna().all().all()
    rows, cols = pixels(units.geometry, trial)
    built = moderators.built_up(trial.landscape, 32)[rows, cols]
    observed = units["assets"].notna()
    assert np.corrcoef(built[observed], units.loc[observed, "assets"])[0, 1] > 0.2
    assert np.corrcoef(built, observed)[0, 1] > 0.05  # the remote are missing more often


def test_same_seed_same_trial_to_the_bit(trial):
    again = satellite_trial(seed=7, **SMALL)
    np.testing.assert_array_equal(again.imagery.values, trial.imagery.values)
    assert again.units.equals(trial.units)
    assert again.places.equals(trial.places)
    np.testing.assert_array_equal(again.tau_map.values, trial.tau_map.values)
    assert not satellite_trial(seed=8, **SMALL).units["outcome"].equals(trial.units["outcome"])


def test_numbers_of_people_and_sites_leave_the_landscape_alone(trial):
    other = satellite_trial(seed=7, n_units=900, n_sites=40, size_px=384)
    np.testing.assert_array_equal(other.imagery.values, trial.imagery.values)
    np.testing.assert_array_equal(other.tau_map.values, trial.tau_map.values)


def test_a_landscape_can_be_used_again(trial):
    other = satellite_trial(seed=99, landscape=trial.landscape, n_units=200, n_sites=30)
    assert other.landscape is trial.landscape
    np.testing.assert_array_equal(other.tau_map.values, trial.tau_map.values)
    assert other.units["site"].nunique() == 30


def test_draws_keep_places_and_people_and_change_the_rest(trial):
    first, second = trial.draw_outcomes(1).units, trial.draw_outcomes(2).units
    same = ["site", "district", "age", "female", "tau", "baseline"]
    assert first[same].equals(second[same])
    assert not first["treatment"].equals(second["treatment"])
    assert not first["outcome"].equals(second["outcome"])
    assert trial.draw_outcomes(1).units.equals(first)
    assert trial.draw_outcomes(7).units.equals(trial.units)  # the seed of the trial itself


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "wavy"}, "one of smooth"),
        ({"n_sites": 3}, "at least 4"),
        ({"n_units": 10, "n_sites": 20}, "n_units at least n_sites"),
        ({"n_sites": 5000, "n_units": 9000, "size_px": 192}, "raise size_px"),
        ({"chip_px": 1}, "at least 2 pixels"),
        ({"site_sd": -1.0}, "none below 0"),
        ({"size_px": 64}, "at least 128"),
        ({"variant": "change", "n_dates": 1}, "at least 2 for change"),
        ({"variant": "kernel", "chip_px": 32, "size_px": 128}, "at least 33"),
        ({"resolution_m": 0.0}, "positive"),
        ({"clouds": "qa", "cloud_cover": 1.5}, "between 0 and 0.9"),
        ({"clouds": "grey"}, 'None, "qa" or "nodata"'),
    ],
)
def test_bad_arguments_say_what_to_do(arguments, message):
    with pytest.raises(ParameterError, match=message):
        satellite_trial(**arguments)
