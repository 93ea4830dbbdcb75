"""ImageEncoder: from a GeoDataFrame to components of what its imagery shows."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from scipy.ndimage import gaussian_filter, uniform_filter
from shapely.geometry import Point
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalsat import load, open_imagery, save
from causalsat.encoders import ImageEncoder, RandomConvFeatures, TorchvisionEncoder
from causalsat.encoders.places import learn_box, waves
from causalsat.exceptions import ColumnError, DataError, ImageryError, ParameterError

SIDE, PIXEL, LEFT, TOP = 300, 10.0, 300_000.0, 400_000.0
SMALL = RandomConvFeatures(n_features=32)


def raster(pixels: np.ndarray, bands: tuple[str, ...] = ("red", "nir"), times: Any = None) -> xr.DataArray:
    dims = ("band", "y", "x") if pixels.ndim == 3 else ("time", "band", "y", "x")
    coords: dict[str, Any] = {
        "band": list(bands),
        "y": TOP - PIXEL * (np.arange(pixels.shape[-2]) + 0.5),
        "x": LEFT + PIXEL * (np.arange(pixels.shape[-1]) + 0.5),
    }
    if times is not None:
        coords["time"] = pd.to_datetime(times)
    return xr.DataArray(pixels, dims=dims, coords=coords).rio.write_crs("EPSG:32636")


def latent_field(seed: int = 0) -> np.ndarray:
    """A smooth field; where it is high, the landscape of :func:`landscape` is rough."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 25)
    return (field - field.mean()) / field.std()


def landscape(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    rough = np.exp(0.4 * latent_field(seed)) * rng.normal(size=(SIDE, SIDE))
    return np.stack([rough, gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3) * 5]).astype(np.float32) * 20 + 100


def units_at(rows: np.ndarray, cols: np.ndarray, **columns: Any) -> gpd.GeoDataFrame:
    """Units at pixel centres."""
    points = gpd.points_from_xy(LEFT + PIXEL * (np.asarray(cols) + 0.5), TOP - PIXEL * (np.asarray(rows) + 0.5))
    return gpd.GeoDataFrame(columns, geometry=points, crs="EPSG:32636", index=[f"u{j}" for j in range(len(rows))])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return landscape()


@pytest.fixture(scope="module")
def imagery(pixels: np.ndarray) -> Any:
    return open_imagery(raster(pixels))


@pytest.fixture(scope="module")
def units() -> gpd.GeoDataFrame:
    """200 units at 120 places."""
    rng = np.random.default_rng(3)
    rows, cols = rng.integers(20, SIDE - 20, 120), rng.integers(20, SIDE - 20, 120)
    place = np.concatenate([np.arange(120), rng.integers(0, 30, 80)])
    age = rng.normal(40, 10, 200)
    age[:3] = np.nan
    return units_at(rows[place], cols[place], age=age, place=place)


class Counting(TransformerMixin, BaseEstimator):
    """Band means of chips; counts the chips that it sees."""

    seen: list[int] = []

    def fit(self, X: Any, y: Any = None) -> Counting:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> np.ndarray:
        type(self).seen.append(len(X))
        return np.asarray(X).mean(axis=(2, 3))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array(["a", "b"], dtype=object)


class DenseSpy(RandomConvFeatures):
    """Counts calls of the dense form."""

    calls: list[int] = []

    def dense(self, window: Any, rows: Any, cols: Any, size_px: int) -> np.ndarray:
        type(self).calls.append(len(rows))
        return super().dense(window, rows, cols, size_px)


def test_components_know_what_the_landscape_is_made_of(imagery: Any) -> None:
    """A roughness that leaves band means alone is predicted at places never seen."""
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(16, SIDE - 16, 300), rng.integers(16, SIDE - 16, 300)
    truth = uniform_filter(latent_field(), 32)[rows, cols]
    model = make_pipeline(ImageEncoder(imagery, 320, RandomConvFeatures(64), n_components=5), Ridge(1.0))
    predicted = cross_val_predict(model, units_at(rows, cols), truth, cv=KFold(3))
    assert np.corrcoef(predicted, truth)[0, 1] > 0.95


def test_table_that_comes_out(imagery: Any, units: gpd.GeoDataFrame) -> None:
    encoder = ImageEncoder(imagery, 200, SMALL, n_components=4, keep=["age"])
    table = encoder.fit_transform(units)
    assert list(table.columns) == ["img0", "img1", "img2", "img3", "age"] == list(encoder.get_feature_names_out())
    assert table.index.equals(units.index)
    assert encoder.n_places_ == 120
    pd.testing.assert_series_equal(table["age"], units["age"])
    pd.testing.assert_frame_equal(encoder.transform(units), table)
    places = table[~units["place"].duplicated().to_numpy()].iloc[:, :4].to_numpy()
    np.testing.assert_allclose(places.mean(0), 0, atol=1e-9)  # over places, not over units
    np.testing.assert_allclose(np.cov(places.T), np.eye(4), atol=1e-9)
    np.testing.assert_array_equal(table.loc["u120":, "img0"], table["img0"].to_numpy()[units["place"].iloc[120:]])
    shuffled = units.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(encoder.transform(shuffled).loc[units.index], table, atol=1e-6)


def test_each_place_is_encoded_once(imagery: Any, units: gpd.GeoDataFrame) -> None:
    Counting.seen.clear()
    encoder = ImageEncoder(imagery, 200, Counting(), n_components=2)
    encoder.fit_transform(units)
    assert sum(Counting.seen) == 120
    encoder.transform(units.iloc[:1])
    assert sum(Counting.seen) == 121


def test_components_agree_with_scikit_learn(imagery: Any, units: gpd.GeoDataFrame) -> None:
    from sklearn.decomposition import PCA

    first = units[~units["place"].duplicated()]
    first = first.iloc[np.lexsort((first.geometry.x, -first.geometry.y))]  # by row, then column, as places are
    found = ImageEncoder(imagery, 200, SMALL, n_components=3).fit_transform(first).to_numpy()
    chips = imagery.chips(first, size_m=200)
    wanted = PCA(3, whiten=True).fit_transform(StandardScaler().fit_transform(clone(SMALL).fit_transform(chips)))
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def grid(step: int, size: int) -> gpd.GeoDataFrame:
    rows, cols = np.meshgrid(np.arange(size, SIDE - size, step), np.arange(size, SIDE - size, step), indexing="ij")
    return units_at(rows.ravel(), cols.ravel())


@pytest.mark.parametrize("options", [{}, {"stride": 2, "patch_px": (3, 5), "statistics": True}])
@pytest.mark.parametrize("gaps", [False, True])
def test_map_cells_take_the_dense_path_and_get_the_same(pixels: np.ndarray, options: dict, gaps: bool) -> None:
    data = pixels.copy()
    if gaps:
        data[:, 100:130, 60:120] = np.nan
        data[0, ::37, ::41] = np.nan
    imagery = open_imagery(raster(data))
    rng = np.random.default_rng(0)
    training = units_at(rng.integers(0, SIDE, 80), rng.integers(0, SIDE, 80))
    encoder = ImageEncoder(
        imagery, 400, DenseSpy(n_features=32, **options), n_components=6, on_invalid="mask", min_valid=0.7
    )
    encoder.fit(training)
    cells = grid(8, 10)
    DenseSpy.calls.clear()
    found = encoder.transform(cells)
    assert sum(DenseSpy.calls) == len(cells)
    DenseSpy.calls.clear()
    wanted = encoder.set_params(dense=False).transform(cells)
    assert not DenseSpy.calls
    # components have unit variance over the training places
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert found.isna().any(axis=1).any() == wanted.isna().any(axis=1).any()


def test_tiles_bound_memory_and_change_nothing(imagery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = grid(10, 20)
    encoder = ImageEncoder(imagery, 400, DenseSpy(n_features=16), n_components=3).fit(cells.iloc[::7])
    DenseSpy.calls.clear()
    whole = encoder.transform(cells)
    assert len(DenseSpy.calls) == 1
    monkeypatch.setattr("causalsat.encoders.places._WINDOW_SIDE", 120)
    DenseSpy.calls.clear()
    tiled = encoder.transform(cells)
    assert len(DenseSpy.calls) > 4
    pd.testing.assert_frame_equal(tiled, whole, atol=1e-5)


def test_far_places_are_read_chip_by_chip(imagery: Any) -> None:
    encoder = ImageEncoder(imagery, 200, DenseSpy(n_features=16), n_components=3)
    corners = units_at([20, 20, 280, 280, 150], [20, 280, 20, 280, 150])
    encoder.fit(corners)
    DenseSpy.calls.clear()
    encoder.transform(corners)
    assert not DenseSpy.calls


def test_many_training_places_are_fitted_from_a_sample(imagery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = grid(13, 20)
    whole = ImageEncoder(imagery, 400, SMALL, n_components=2).fit_transform(cells)
    monkeypatch.setattr("causalsat.encoders.image_encoder._FIT_BYTES", 40 * 4 * 2 * 40 * 40)  # 40 chips
    encoder = ImageEncoder(imagery, 400, SMALL, n_components=2)
    sampled = encoder.fit_transform(cells)
    assert encoder.n_places_ == len(cells)
    pd.testing.assert_frame_equal(encoder.transform(cells), sampled, atol=1e-6)
    assert abs(np.corrcoef(sampled["img0"], whole["img0"])[0, 1]) > 0.95  # other filters, same landscape


def test_scales_and_sources_are_joined(pixels: np.ndarray, imagery: Any, units: gpd.GeoDataFrame) -> None:
    other = open_imagery(raster(landscape(5)[:1], bands=("vv",)))
    encoder = ImageEncoder({"s2": imagery, "s1": other}, [160, 320], RandomConvFeatures(4), n_components=None)
    table = encoder.fit_transform(units)
    assert table.shape == (200, 16)
    assert table.columns[0] == "img_s2_160m_rcf0_pos"
    assert table.columns[-1] == "img_s1_320m_rcf1_neg"
    alone = ImageEncoder(other, 320, RandomConvFeatures(4), n_components=None).fit_transform(units)
    assert alone.columns[0] == "img_rcf0_pos"
    np.testing.assert_allclose(table.iloc[:, -4:], alone, atol=0.2)  # filters come from places in another order
    reduced = ImageEncoder({"s2": imagery, "s1": other}, 160, RandomConvFeatures(4), n_components=0.9)
    share = reduced.fit(units).reduction_.explained
    assert share.sum() >= 0.9 > share[:-1].sum()


def test_sequences_with_a_cloudy_date(pixels: np.ndarray, units: gpd.GeoDataFrame) -> None:
    sequence = np.stack([pixels, landscape(7)])
    sequence[1, :, :100, :100] = np.nan
    imagery = open_imagery(raster(sequence, times=["2015-01-01", "2016-01-01"]))
    encoder = ImageEncoder(imagery, 200, RandomConvFeatures(4), n_components=None)
    table = encoder.fit_transform(units)
    assert list(table.columns) == [f"img_t{t}_rcf{j}_{s}" for t in (0, 1) for s in ("pos", "neg") for j in (0, 1)]
    cloudy = units_at([50], [50])
    found = encoder.transform(cloudy)
    np.testing.assert_array_equal(found.iloc[0, 4:], 0.0)  # the training mean
    assert (found.iloc[0, :4] != 0).all()
    with pytest.raises(ImageryError, match="50% valid"):
        encoder.set_params(min_valid=0.6).transform(cloudy)


def test_units_off_the_imagery(imagery: Any, units: gpd.GeoDataFrame) -> None:
    away = pd.concat([units.iloc[:40], units_at([-500, 5], [100, 0])])
    encoder = ImageEncoder(imagery, 400, SMALL, n_components=3, keep=["age"])
    with pytest.raises(ImageryError, match=r"2 of 42 units .*'u0' \(0% valid\).*on_invalid='mask'"):
        encoder.fit(away)
    table = encoder.set_params(on_invalid="mask").fit_transform(away)
    assert table["img0"].isna().to_numpy().tolist() == [False] * 40 + [True, True]
    assert encoder.n_places_ == len(units.iloc[:40].drop_duplicates("place"))
    kept = encoder.set_params(min_valid=0.2).transform(away)
    assert kept["img0"].isna().sum() == 1
    with pytest.raises(ImageryError, match="none of the 1 training places"):
        encoder.set_params(keep=()).fit(units_at([-500], [100]))


def test_coordinates_are_the_places_in_the_imagerys_system(imagery: Any, units: gpd.GeoDataFrame) -> None:
    encoder = ImageEncoder(imagery, 200, SMALL, n_components=2, keep=["age"], coordinates=True)
    table = encoder.fit_transform(units)
    assert (
        table.columns.tolist() == encoder.get_feature_names_out().tolist() == ["img0", "img1", "east", "north", "age"]
    )
    np.testing.assert_array_equal(table[["east", "north"]], np.column_stack([units.geometry.x, units.geometry.y]))
    degrees = encoder.transform(units.to_crs("EPSG:4326"))
    np.testing.assert_allclose(degrees[["east", "north"]], table[["east", "north"]], atol=1e-3)
    with pytest.raises(ParameterError, match="'east', a coordinate"):
        ImageEncoder(imagery, 200, SMALL, keep=["east"], coordinates=True).fit(units.assign(east=1.0))


def test_smooth_coordinates_are_waves_across_the_training_places(imagery: Any, units: gpd.GeoDataFrame) -> None:
    train = units.iloc[:40]
    encoder = ImageEncoder(imagery, 200, SMALL, n_components=2, coordinates="smooth").fit(train)
    table = encoder.transform(units)
    assert table.columns.tolist() == encoder.get_feature_names_out().tolist()
    x, y = train.geometry.x, train.geometry.y
    low, extent = np.array([x.min(), y.min()]), np.array([np.ptp(x), np.ptp(y)])
    np.testing.assert_allclose(encoder.box_, [low - 0.1 * extent, 1.2 * extent])
    inside = np.clip(
        (np.column_stack([units.geometry.x, units.geometry.y]) - encoder.box_[0]) / encoder.box_[1], 0, 1
    )
    for i, j in ((0, 2), (1, 1), (2, 0), (0, 3), (1, 2), (2, 1), (3, 0)):
        wanted = np.sqrt(2) * np.cos(np.pi * i * inside[:, 0]) * np.cos(np.pi * j * inside[:, 1])
        np.testing.assert_allclose(table[f"wave_e{i}n{j}"], wanted, atol=1e-12)
    with pytest.raises(ParameterError, match="coordinates='wavy'"):
        ImageEncoder(imagery, 200, SMALL, coordinates="wavy").fit(train)


def test_smooth_coordinates_are_constant_beyond_the_places_and_fit_a_single_line() -> None:
    box = learn_box(np.array([0.0, 10.0]), np.array([3.0, 3.0]))  # places on a line
    np.testing.assert_array_equal(box, [[-1.0, 3.0], [12.0, 1.0]])
    near, far = (waves(np.array([e]), np.array([3.0]), box) for e in (11.0, 1e4))
    assert {name: float(v[0]) for name, v in near.items()} == {name: float(v[0]) for name, v in far.items()}


def test_geometries_other_than_points_in_the_rasters_crs(imagery: Any, units: gpd.GeoDataFrame) -> None:
    encoder = ImageEncoder(imagery, 200, SMALL, n_components=3).fit(units)
    wanted = encoder.transform(units)
    pd.testing.assert_frame_equal(encoder.transform(units.to_crs("EPSG:4326")), wanted, atol=1e-6)
    pd.testing.assert_frame_equal(encoder.transform(units.geometry), wanted, atol=1e-6)
    pd.testing.assert_frame_equal(encoder.transform(units.set_geometry(units.buffer(3))), wanted, atol=1e-6)


def test_pipelines_and_column_transformers(imagery: Any, units: gpd.GeoDataFrame) -> None:
    y = np.random.default_rng(0).normal(size=len(units))
    encoder = ImageEncoder(imagery, 200, SMALL, n_components=3)
    columns = make_column_transformer((encoder, ["geometry"]), (StandardScaler(), ["place"]))
    assert columns.fit_transform(units).shape == (200, 4)
    assert list(columns.get_feature_names_out())[:1] == ["imageencoder__img0"]
    columns.set_output(transform="pandas")
    assert list(columns.fit_transform(units).columns) == [
        *(f"imageencoder__img{j}" for j in range(3)),
        "standardscaler__place",
    ]
    for model in (make_pipeline(columns, Ridge()), make_pipeline(clone(encoder), Ridge())):
        assert np.isfinite(cross_val_predict(model, units, y, cv=3)).all()


def test_clone_keeps_the_imagery_and_fit_changes_no_parameter(imagery: Any, units: gpd.GeoDataFrame) -> None:
    encoder = ImageEncoder({"a": imagery}, [200.0], SMALL, n_components=2, keep=["age"])
    before = encoder.get_params(deep=False)
    encoder.fit(units)
    assert all(encoder.get_params(deep=False)[k] is v for k, v in before.items())
    assert not hasattr(SMALL, "filters_")
    assert clone(encoder).get_params()["encoder__n_features"] == 32
    assert not hasattr(clone(encoder), "encoders_")
    assert encoder.set_params(encoder__n_features=8).fit(units).encoders_[0].n_features == 8
    encoder.set_params(encoder__n_features=32)


def test_nothing_is_learned_from_places_outside_the_training_fold(pixels: np.ndarray) -> None:
    west, east = units_at([100, 150, 200] * 8, np.arange(20, 116, 4)), units_at([100], [250])
    changed = pixels.copy()
    changed[:, :, 180:] *= 3
    first, second = (
        ImageEncoder(open_imagery(raster(p)), 200, SMALL, n_components=2).fit(west) for p in (pixels, changed)
    )
    pd.testing.assert_frame_equal(first.transform(west), second.transform(west))
    np.testing.assert_array_equal(first.encoders_[0].filters_[0], second.encoders_[0].filters_[0])
    assert np.abs(first.transform(east) - second.transform(east)).to_numpy().max() > 0.1


@pytest.mark.parametrize("coordinates", [False, "smooth"])
def test_saved_encoder_gives_the_same(
    pixels: np.ndarray, units: gpd.GeoDataFrame, tmp_path: Any, coordinates: bool | str
) -> None:
    raster(pixels).rio.to_raster(tmp_path / "image.tif")
    imagery = open_imagery(tmp_path / "image.tif", bands=["red", "nir"])
    encoder = ImageEncoder(imagery, 200, SMALL, n_components=2, keep=["age"], coordinates=coordinates).fit(units)
    save(encoder, tmp_path / "encoder.safetensors")
    pd.testing.assert_frame_equal(load(tmp_path / "encoder.safetensors").transform(units), encoder.transform(units))


def test_torchvision_inside(imagery: Any, units: gpd.GeoDataFrame) -> None:
    encoder = ImageEncoder(imagery, 320, TorchvisionEncoder("shufflenet_v2_x0_5"), n_components=2)
    few = units.iloc[:12]
    pd.testing.assert_frame_equal(encoder.fit_transform(few), encoder.transform(few), atol=1e-4)


def no_geometry(units: gpd.GeoDataFrame) -> Any:
    return pd.DataFrame(units.drop(columns="geometry"))


def one_missing(units: gpd.GeoDataFrame) -> Any:
    out = units.copy()
    out.loc["u3", "geometry"] = None
    out.loc["u5", "geometry"] = Point()
    return out


def text_column(units: gpd.GeoDataFrame) -> Any:
    return units.assign(age="old")


@pytest.mark.parametrize(
    ("options", "change", "error", "says"),
    [
        ({}, no_geometry, DataError, "DataFrame with columns age, place.*points_from_xy"),
        ({}, lambda u: u[["age"]].to_numpy(), DataError, "ndarray, which has no geometry"),
        ({}, lambda u: u.set_crs(None, allow_override=True), DataError, "set_crs"),
        ({}, one_missing, DataError, "2 of 200 units have no geometry, at index 'u3', 'u5'"),
        ({}, lambda u: u.iloc[:0], DataError, "0 rows"),
        ({}, lambda u: u.iloc[:1], DataError, "1 distinct place"),
        ({}, text_column, ColumnError, "'age' holds"),
        ({"keep": ["agee"]}, None, ColumnError, "'agee'.*not a column"),
        ({"keep": "age"}, None, ColumnError, "list of column names"),
        ({"keep": ["img3"]}, lambda u: u.assign(img3=1.0), ColumnError, "named like an image feature"),
        ({"n_components": 500}, None, ParameterError, "n_components=500 with 120 distinct training places"),
        ({"n_components": 0}, None, ParameterError, "n_components=0"),
        ({"size_m": -5}, None, ParameterError, "size_m=-5"),
        ({"size_m": 20}, None, ParameterError, "2 x 2 pixels"),
        ({"imagery": "image.tif"}, None, ParameterError, "open_imagery"),
        ({"on_invalid": "drop"}, None, ParameterError, "on_invalid='drop'"),
        ({"min_valid": 50}, None, ParameterError, "share between 0 and 1"),
        ({"dense": "always"}, None, ParameterError, "dense='always'"),
    ],
)
def test_bad_input_is_refused(
    imagery: Any, units: gpd.GeoDataFrame, options: dict, change: Any, error: type, says: str
) -> None:
    settings = {"imagery": imagery, "size_m": 200, "encoder": SMALL, "keep": ["age"], **options}
    with pytest.raises(error, match=says):
        ImageEncoder(**settings).fit(change(units) if change else units)


def test_imagery_without_variation_is_refused(units: gpd.GeoDataFrame) -> None:
    flat = open_imagery(raster(np.ones((2, SIDE, SIDE), dtype=np.float32)))
    with pytest.raises(ImageryError, match="constant"):
        ImageEncoder(flat, 200, SMALL).fit(units)
    with pytest.raises(DataError, match="same at all"):
        ImageEncoder(flat, 200, Counting(), n_components=1).fit(units)


@pytest.mark.parametrize("coordinates", [True, "smooth"])
def test_coordinates_run_on_across_180_degrees(coordinates):
    """Places on both sides of 180 degrees have the coordinates that a raster without a seam gives them."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(1, 20, 3600)).astype("float32")

    def image(west: float) -> Any:
        y, x = -16 - 0.1 * (np.arange(20) + 0.5), west + 0.1 * (np.arange(3600) + 0.5)
        turned = np.roll(pixels, -round((west + 180) * 10), axis=2)
        return open_imagery(
            xr.DataArray(turned, dims=("band", "y", "x"), coords={"y": y, "x": x}).rio.write_crs("EPSG:4326")
        )

    lon, lat = rng.uniform(177, 183, 30), rng.uniform(-17.5, -16.5, 30)
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy((lon + 180) % 360 - 180, lat), crs="EPSG:4326")
    tables = []
    for west in (-180.0, 0.0):
        encoder = ImageEncoder(image(west), 70_000, encoder=SMALL, n_components=2, coordinates=coordinates).fit(
            places
        )
        tables.append(encoder.transform(places))
    east = tables[0]["east"].to_numpy()
    np.testing.assert_allclose(np.diff(east), np.diff(lon), atol=1e-9)
    waves_of = [c for c in tables[0] if c.startswith("wave")]
    assert bool(waves_of) == (coordinates == "smooth")
    np.testing.assert_allclose(tables[0][waves_of], tables[1][waves_of], atol=1e-9)
    np.testing.assert_allclose(np.diff(tables[0]["east"]), np.diff(tables[1]["east"]), atol=1e-9)
