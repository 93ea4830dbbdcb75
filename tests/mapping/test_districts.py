import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from map_toys import NORTH, PIXEL, UTM, WEST, FirstFeature, toy_model, write_raster

from causalsat.exceptions import ColumnError, DataError, DataWarning, ImageryError, OutputError, ParameterError
from causalsat.imagery import open_imagery
from causalsat.mapping import district_effects, map_effects

CELL = 10 * PIXEL


def box(row, col, height, width):
    """Rectangle of native pixels."""
    west, north = WEST + col * PIXEL, NORTH - row * PIXEL
    return shapely.box(west, north - height * PIXEL, west + width * PIXEL, north)


@pytest.fixture(scope="module")
def districts():
    shapes = [box(0, 0, 40, 40), box(40, 0, 50, 60), box(60, 60, 30, 60)]
    return gpd.GeoDataFrame({"name": ["north", "south", "east"]}, geometry=shapes, crs=UTM)


def test_district_means_are_the_means_of_the_map(model, imagery, districts, tmp_path):
    found = district_effects(model, imagery, districts, CELL, name="name", progress=False)
    cells = map_effects(
        model, imagery, districts, CELL, tmp_path / "map.tif", png=False, html=False, progress=False
    ).to_xarray()
    x, y = np.meshgrid(cells.x, cells.y)
    for label, shape in zip(districts["name"], districts.geometry, strict=True):
        inside = shapely.contains_xy(shape, x, y)
        own = cells.sel(band="cate").values[inside]
        assert found.table.loc[label, "mean"] == pytest.approx(np.nanmean(own), abs=1e-5)
        assert found.table.loc[label, "n_cells"] == inside.sum()
        assert found.table.loc[label, "valid"] == pytest.approx(np.isfinite(own).mean())
        assert found.table.loc[label, "support"] == pytest.approx(
            np.nanmean(cells.sel(band="support").values[inside]), abs=1e-5
        )
    assert len(found) == 3
    assert found.resolution_m == pytest.approx(CELL)


def test_districts_that_overlap_each_have_all_of_their_cells(model, imagery, districts):
    """A country beside its districts, in either order: no cell is taken from one by the other."""
    country = gpd.GeoDataFrame({"name": ["country"]}, geometry=[box(0, 0, 90, 120)], crs=UTM)
    alone = district_effects(model, imagery, districts, CELL, name="name", progress=False).table
    whole = district_effects(model, imagery, country, CELL, name="name", progress=False).table
    for parts in ([country, districts], [districts, country]):
        table = district_effects(model, imagery, pd.concat(parts), CELL, name="name", progress=False).table
        for column in ("mean", "n_cells", "sd", "support"):
            np.testing.assert_allclose(table.loc["country", column], whole.loc["country", column], rtol=1e-6)
            np.testing.assert_allclose(table.loc[alone.index, column], alone[column], rtol=1e-6)


def test_the_interval_is_that_of_joint_draws(model, imagery, districts):
    """The toy model's draws move all cells together, so a mean is as uncertain as a cell, however many there are."""
    table = district_effects(model, imagery, districts, CELL, progress=False).table
    np.testing.assert_allclose(table["upper"] - table["lower"], 1.98, atol=0.01)  # of 21 draws in [-1, 1]
    np.testing.assert_allclose(
        table["sd_independent"], table["sd"] / np.sqrt(table["n_cells"] * table["valid"]), rtol=0.03
    )
    difference = district_effects(model, imagery, districts, CELL, progress=False).posterior.draws
    np.testing.assert_allclose((difference[:, 0] - difference[:, 1]).std(), 0, atol=1e-9)


def test_tiles_and_chunks_change_nothing(model, imagery, districts):
    whole = district_effects(model, imagery, districts, CELL, progress=False)
    tiled = district_effects(model, imagery, districts, CELL, tile_px=3, progress=False)
    np.testing.assert_allclose(tiled.posterior.draws, whole.posterior.draws, atol=1e-9)


def test_weights_are_those_of_the_raster(model, imagery, districts, tmp_path):
    people = np.zeros((1, 90, 120), dtype=np.float32)
    people[:, :20, :20] = 3.0  # all people of the north live in its corner
    people[:, 40:, :] = 1.0
    weights = open_imagery(write_raster(tmp_path / "people.tif", people))
    weighted = district_effects(model, imagery, districts, CELL, weights=weights, progress=False).table
    plain = district_effects(model, imagery, districts, CELL, progress=False).table
    corner = gpd.GeoDataFrame(geometry=[box(0, 0, 20, 20)], crs=UTM)
    alone = district_effects(model, imagery, corner, CELL, progress=False).table
    assert weighted["mean"].iloc[0] == pytest.approx(alone["mean"].iloc[0], abs=1e-6)
    assert weighted["mean"].iloc[0] != pytest.approx(plain["mean"].iloc[0], abs=1e-3)
    np.testing.assert_allclose(weighted["mean"].iloc[1:], plain["mean"].iloc[1:], atol=1e-6)


def test_any_coordinate_system_and_file(model, imagery, districts, tmp_path):
    here = district_effects(model, imagery, districts, CELL, name="name", progress=False)
    districts.to_crs(4326).to_file(tmp_path / "districts.gpkg")
    there = district_effects(model, imagery, tmp_path / "districts.gpkg", CELL, name="name", progress=False)
    np.testing.assert_allclose(there.table["mean"], here.table["mean"], atol=0.02)
    written = gpd.read_file(here.write(tmp_path / "out.gpkg")).set_index("district")
    np.testing.assert_allclose(written.loc[["north", "east"], "mean"], here.table.loc[["north", "east"], "mean"])
    assert here.write(tmp_path / "out.csv").read_text().startswith("district,n_cells")


def test_districts_without_data_are_kept_and_told(model, imagery, districts):
    shapes = [*districts.geometry, box(24, 54, 10, 16), box(0, 100, 10, 10)]  # in the hole; one cell
    more = gpd.GeoDataFrame(geometry=shapes, index=list("abcde"), crs=UTM)
    with pytest.warns(DataWarning) as caught:
        found = district_effects(model, imagery, more, CELL, progress=False)
    words = " ".join(str(w.message) for w in caught)
    assert "fewer than 4 cells: e" in words
    assert "no cell with valid imagery and weight: d" in words
    assert np.isnan(found.table.loc["d", "mean"])
    assert list(found.posterior.index) == ["a", "b", "c", "e"]


def fit_toy(estimator):
    import pandas as pd

    table = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["img0", "img1"])
    return estimator.fit(table, np.arange(20.0), treatment=np.arange(20) % 2)


class Restless(FirstFeature):
    """Draws anew in every call: what joint sums must refuse."""

    def _effect_draws(self, X, treatment, baseline):
        rng = np.random.default_rng(len(X))
        return X[:, 0] + rng.standard_normal((21, len(X)))


def test_draws_that_are_not_joint_are_refused(model, imagery, districts, trial):
    restless = toy_model(imagery, trial, 240.0)
    restless.steps[-1] = ("firstfeature", fit_toy(Restless()))
    with pytest.raises(DataError, match="joint"):
        district_effects(restless, imagery, districts, CELL, progress=False)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a", "a ", "b"],
            r"column 'name' of the districts has names that differ only by spaces or type: 'a' and 'a '",
        ),
        ([7, "7", "b"], "differ only by spaces or type: 7 and '7'"),
        (["a", None, "b"], "has no name in 1 of 3 rows, the first of them row 1"),
        (["a", np.nan, np.nan], "has no name in 2 of 3 rows"),
        (["a", "b", "  "], "has no name in 1 of 3 rows, the first of them row 2"),
        (["a", "b", "a"], "repeated names, such as 'a'"),
    ],
)
def test_names_of_districts_have_the_rule_of_cluster_labels(model, imagery, districts, names, message):
    named = districts.assign(name=pd.Series(names, dtype=object))
    with pytest.raises(DataError, match=message):
        district_effects(model, imagery, named, CELL, name="name", progress=False)
    with pytest.raises(DataError, match=message.replace("column 'name' of the districts", "the index of districts")):
        district_effects(model, imagery, named.set_index("name"), CELL, progress=False)


def test_polygons_in_metres_that_count_as_degrees_are_refused(model, imagery, districts, tmp_path):
    """GeoJSON has no system of its own: GDAL takes metres for degrees, and so does pyogrio."""
    path = tmp_path / "districts.geojson"
    districts.set_crs(None, allow_override=True).to_file(path, driver="GeoJSON")
    assert gpd.read_file(path).crs == "EPSG:4326"
    with pytest.raises(DataError, match=r"which is in degrees.*look like metres.*set_crs"):
        district_effects(model, imagery, path, CELL, progress=False)
    lonlat = districts.to_crs(4326)
    swapped = lonlat.set_geometry(shapely.transform(lonlat.geometry.to_numpy(), lambda xy: xy[:, ::-1] + [0, 100]))
    with pytest.raises(DataError, match="longitude and latitude look swapped"):
        district_effects(model, imagery, swapped.set_crs(4326), CELL, progress=False)
    right = gpd.read_file(path).set_crs(UTM, allow_override=True)
    table = district_effects(model, imagery, right, CELL, progress=False).table
    expected = district_effects(model, imagery, districts, CELL, progress=False).table
    pd.testing.assert_series_equal(table["mean"], expected["mean"])


def test_polygons_that_are_not_finite_are_refused(model, imagery, districts):
    broken = districts.copy()
    shapes = broken.geometry.to_numpy()
    shapes[1] = shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])
    with pytest.raises(DataError, match=r"1 of 1 polygons have coordinates that are not finite, such as 1"):
        district_effects(model, imagery, broken.set_geometry(shapes), CELL, progress=False)


def test_polygons_of_the_whole_world_are_those_of_the_imagery_s_surroundings(model, imagery, districts):
    """A projection is not defined on the other side of the Earth."""
    country = gpd.GeoSeries([box(0, 0, 90, 120)], crs=UTM).to_crs(4326).iloc[0]
    land = shapely.union(shapely.box(-179, -80, 179, 80), country)
    half = shapely.union(shapely.box(20, -30, 130, 30), country)  # of which parts have no place in the projection
    far = shapely.box(100, 20, 130, 45)
    shapes = gpd.GeoDataFrame({"name": ["world", "half", "far"]}, geometry=[land, half, far], crs=4326)
    with pytest.warns(DataWarning, match="no cell with valid imagery"):
        table = district_effects(model, imagery, shapes, CELL, name="name", progress=False).table
    everything = gpd.GeoDataFrame({"name": ["all"]}, geometry=[shapely.box(*imagery.bounds)], crs=UTM)
    expected = district_effects(model, imagery, everything, CELL, name="name", progress=False).table
    for label in ("world", "half"):
        assert table.loc[label, "n_cells"] == expected.loc["all", "n_cells"]
        assert table.loc[label, "mean"] == pytest.approx(expected.loc["all", "mean"], rel=1e-9)
    assert table.loc["far", "n_cells"] == 0
    with pytest.raises(ImageryError, match="more than 30 degrees from the imagery"):
        map_effects(model, imagery, gpd.GeoSeries([far], crs=4326), CELL, "unused.tif", progress=False)


def test_names_that_differ_by_case_are_told(model, imagery, districts):
    named = districts.assign(name=["Gulu", "gulu", "Ñandú"])
    with pytest.warns(DataWarning, match=r"case or accents: 'Gulu' and 'gulu'; they are taken for different"):
        found = district_effects(model, imagery, named, CELL, name="name", progress=False)
    assert found.table.index.tolist() == ["Gulu", "gulu", "Ñandú"]


def test_what_is_no_district_is_refused(model, imagery, districts):
    with pytest.raises(DataError, match="repeated names"):
        district_effects(model, imagery, districts.set_index(np.array([1, 1, 2])), CELL, progress=False)
    with pytest.raises(DataError, match="coordinate system"):
        district_effects(model, imagery, districts.set_crs(None, allow_override=True), CELL, progress=False)
    with pytest.raises(DataError, match="GeoDataFrame"):
        district_effects(model, imagery, [1, 2], CELL, progress=False)
    with pytest.raises(ParameterError, match="level"):
        district_effects(model, imagery, districts, CELL, level=90, progress=False)


def test_the_picture_hatches_what_is_unsure(model, imagery, districts):
    import matplotlib.pyplot as plt

    found = district_effects(model, imagery, districts, CELL, progress=False)
    ax = found.plot(title="Effects", units="USD")
    unsure = ((found.table["lower"] < 0) & (found.table["upper"] > 0)).sum()
    hatched = [c for c in ax.collections if c.get_hatch()]
    assert sum(len(c.get_paths()) for c in hatched) == unsure > 0
    plt.close(ax.figure)


@pytest.mark.statistical
def test_intervals_of_district_means_cover(imagery, districts):
    """Effect linear in what the encoder sees: 90 % intervals of joint draws cover, those of lone cells do not."""
    from map_toys import ChipMeans, places
    from sklearn.pipeline import make_pipeline

    from causalsat.estimators.doubly_robust import DoublyRobustEffect

    encoder = ChipMeans(imagery, 240.0)
    truth = None
    hits, alone = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        points = places(300, imagery.shape, seed=seed)
        rows, cols = imagery.windows(points, 1)
        points = points[(rows < 15) | (rows > 48) | (cols < 40) | (cols > 85)].reset_index(drop=True)
        x = encoder.fit(points).transform(points).to_numpy()
        t = rng.integers(0, 2, len(points))
        y = x @ [0.3, 0.2] + t * (0.5 + x @ [0.4, -0.2]) + rng.standard_normal(len(points))
        model = make_pipeline(ChipMeans(imagery, 240.0), DoublyRobustEffect(n_draws=300))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(points, y, doublyrobusteffect__treatment=t)
        found = district_effects(model, imagery, districts, CELL, progress=False)
        if truth is None:
            exact = toy_model(imagery, points, 240.0)
            first = district_effects(exact, imagery, districts, CELL, progress=False).table["mean"].to_numpy()
            second = _band_mean(imagery, districts)
            truth = 0.5 + 0.4 * first - 0.2 * second
        table = found.table
        hits.append((table["lower"] < truth) & (truth < table["upper"]))
        alone.append(np.abs(table["mean"] - truth) < 1.645 * table["sd_independent"])
    coverage, naive = np.mean(hits), np.mean(alone)
    assert 0.82 < coverage < 0.97  # 40 draws x 3 districts of one landscape
    assert naive < 0.5


def _band_mean(imagery, districts):
    """Mean of the second band's chip means over the valid cells of each district."""
    from map_toys import ChipMeans

    class Second(ChipMeans):
        def transform(self, X):
            return super().transform(X).iloc[:, ::-1].set_axis(["img0", "img1"], axis=1)

    from sklearn.pipeline import Pipeline

    toy = fit_toy(FirstFeature())
    model = Pipeline([("chips", Second(imagery, 240.0).fit(None)), ("effect", toy)])
    return district_effects(model, imagery, districts, CELL, progress=False).table["mean"].to_numpy()


def test_a_table_is_written_in_the_format_of_its_ending(model, imagery, districts, tmp_path):
    found = district_effects(model, imagery, districts, CELL, name="name", progress=False)
    back = gpd.read_parquet(found.write(tmp_path / "out.parquet")).set_index("district")
    np.testing.assert_allclose(back["mean"], found.table["mean"])
    assert back.geometry.geom_equals(found.table.geometry).all()
    with pytest.raises(ParameterError, match=r"\.gpkg"):
        found.write(tmp_path / "out.xlsx")
    assert not (tmp_path / "out.xlsx").exists()


def test_districts_and_regions_in_files(model, imagery, districts, tmp_path):
    districts.to_parquet(tmp_path / "d.parquet")
    settings = {"name": "name", "progress": False}
    found = district_effects(model, imagery, tmp_path / "d.parquet", CELL, **settings)
    expected = district_effects(model, imagery, districts, CELL, **settings)
    np.testing.assert_array_equal(found.table["mean"], expected.table["mean"])
    with pytest.raises(ColumnError, match="did you mean 'name'"):
        district_effects(model, imagery, tmp_path / "d.parquet", CELL, name="Name", progress=False)
    (tmp_path / "text.gpkg").write_text("no database")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for file, piece in (
        ("absent.gpkg", "does not exist"),
        ("text.gpkg", "cannot be read"),
        ("table.csv", "geometry"),
    ):
        with pytest.raises(DataError, match=piece):
            district_effects(model, imagery, str(tmp_path / file), CELL, progress=False)
        with pytest.raises(DataError, match=piece):
            map_effects(model, imagery, tmp_path / file, CELL, tmp_path / "e.tif", progress=False)


def test_a_folder_that_cannot_be_made_is_an_output_error(model, imagery, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        map_effects(model, imagery, None, CELL, tmp_path / "file" / "e.tif", progress=False)
