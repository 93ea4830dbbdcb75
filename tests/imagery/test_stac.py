"""STAC catalogues on disk: pixels are those of rasterio's masked reads of the assets, days are items' ends."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import Transformer

from causalsat.exceptions import ImageryError, ImageryNotFoundError, ImageryWarning
from causalsat.imagery import open_imagery

CRS = "EPSG:32636"
NET = "http://192.0.2.1"  # reserved for documentation: nothing is there


def tif(path: Path, data: np.ndarray, east: int = 0, south: int = 0, side: int = 10, mask=None, **profile) -> Path:
    """A raster; east and south are metres from (500000, 100000)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {key: profile.pop(key) for key in ("scales", "offsets") if key in profile}
    transform = rasterio.Affine(side, 0, 500000 + east, 0, -side, 100000 - south)
    settings = {"driver": "GTiff", "crs": CRS, "transform": transform, **profile}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", height=data.shape[1], width=data.shape[2], count=len(data), dtype=str(data.dtype), **settings
        ) as sink,
    ):
        sink.write(data)
        if mask is not None:
            sink.write_mask(mask)
        for key, values in own.items():
            setattr(sink, key, values)
    return path


def numbers(seed: int = 0, dtype: str = "uint16", side: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, size=(1, side, side)).astype(dtype)


def item(name: str, assets: dict, when: str | None = "2015-03-05T08:00:00Z", href: str = "./{}", **more) -> dict:
    """An item whose assets are {key: file or (file, what the asset says)}."""
    properties = {"datetime": when, **more.pop("properties", {})}
    said = {}
    for key, asset in assets.items():
        file, words = asset if isinstance(asset, tuple) else (asset, {})
        said[key] = {"href": href.format(Path(file).name) if file else "./none.tif",
                     "type": "image/tiff; application=geotiff", "roles": ["data"], **words}  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None,
        "bbox": [33.0, 0.8, 33.1, 0.91], "properties": properties, "assets": said, "links": [], **more,
    }  # fmt: skip


def save(folder: Path, items: list[dict], form: str = "catalog") -> Path:
    """The items as a catalogue, collection or item collection; returns what to open."""
    if form == "items":
        (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return folder / "items.json"
    links = [{"rel": "root", "href": f"{NET}/catalog.json"}, {"rel": "self", "href": f"{NET}/here.json"}]
    for each in items:
        each["links"] = [*links, {"rel": "parent", "href": f"./{form}.json"}, *each["links"]]
        (folder / f"{each['id']}.json").write_text(json.dumps(each))
        links = [*links, {"rel": "item", "href": f"./{each['id']}.json"}]
    head = {"type": form.capitalize(), "id": "trial", "stac_version": "1.0.0", "description": "", "links": links}
    if form == "collection":
        head |= {
            "license": "other",
            "extent": {"spatial": {"bbox": [[33, 0, 34, 1]]}, "temporal": {"interval": [[None, None]]}},
        }
    (folder / f"{form}.json").write_text(json.dumps(head))
    return folder


def whole(imagery) -> np.ndarray:
    return imagery.read_window(0, 0, *imagery.shape)


def theirs(path: Path) -> np.ndarray:
    """Rasterio's masked read without alpha."""
    with rasterio.open(path) as source:
        bands = [i for i, kind in enumerate(source.colorinterp, 1) if kind.name != "alpha"]
        values = source.read(bands).astype("float32")
        return np.where(source.read_masks(bands) == 0, np.nan, values)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Python's sockets refuse: nothing may be asked of the net."""
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)


@pytest.mark.parametrize("form", ["catalog", "collection", "items", "nested", "one item"])
def test_every_kind_of_catalogue_opens(tmp_path, form):
    """With addresses relative to each file, and root, parent and self on the net, which are not asked."""
    files = [tif(tmp_path / f"s{t}_{band}.tif", numbers(10 * t + b)) for t in (0, 1) for b, band in enumerate("rn")]
    days = ("2015-03-05T08:00:00Z", "2016-03-05T08:00:00Z")
    items = [item(f"s{t}", {"red": files[2 * t], "nir": files[2 * t + 1]}, days[t]) for t in (0, 1)]
    if form == "one item":
        (tmp_path / "s0.json").write_text(json.dumps(items[0]))
        source, items = tmp_path / "s0.json", items[:1]
    elif form == "nested":
        save(tmp_path, items, "collection")
        child = {"rel": "child", "href": "../collection.json"}
        (tmp_path / "top").mkdir()
        head = {"type": "Catalog", "id": "top", "stac_version": "1.0.0", "description": "", "links": [child]}
        (tmp_path / "top" / "catalog.json").write_text(json.dumps(head))
        source = tmp_path / "top"
    else:
        source = save(tmp_path, items, form)
    imagery = open_imagery(source)
    assert imagery.days == ("2015-03-05", "2016-03-05")[: len(items)]
    assert imagery.bands == ("red", "nir")
    expected = np.stack([np.concatenate([theirs(files[2 * t]), theirs(files[2 * t + 1])]) for t in range(len(items))])
    np.testing.assert_array_equal(whole(imagery), expected)
    np.testing.assert_array_equal(whole(imagery.sel(bands=["nir"])), expected[:, [1]])
    assert imagery.resolution_m == 10


def masked(folder, name):
    valid = np.ones((20, 20), bool)
    valid[3:8, 5:15] = False
    return tif(folder / name, numbers(1, "uint8"), mask=valid)


def with_alpha(folder, name):
    data = np.concatenate([numbers(k, "uint8") for k in range(3)] + [np.full((1, 20, 20), 255, "uint8")])
    data[3, 3:8, 5:15] = 0
    return tif(folder / name, data, photometric="rgb", alpha="yes")


def with_nodata(folder, name):
    data = numbers(2)
    data[0, 3:8, 5:15] = 7
    return tif(folder / name, data, nodata=7)


@pytest.mark.parametrize(("make", "bands"), [(masked, 1), (with_alpha, 3), (with_nodata, 1)])
def test_masks_of_assets_are_heeded(tmp_path, make, bands):
    file = make(tmp_path, "a.tif")
    imagery = open_imagery(save(tmp_path, [item("a", {"visual": file})]))
    assert len(imagery.bands) == bands
    expected = theirs(file)
    assert np.isnan(expected).sum() >= 50
    np.testing.assert_array_equal(whole(imagery)[0], expected)


@pytest.mark.parametrize("where", ["raster:bands", "bands", "asset"])
def test_nodata_that_items_state_for_each_band(tmp_path, where):
    """One band's is 0 and the other's 65535, which to_dataarray would drop both; the quality band has none."""
    red, nir, quality = numbers(0), numbers(1), (numbers(2) % 3).astype("uint8")
    red[0, :5], nir[0, 5:9] = 0, 65535

    def said(value):
        return {where: [{"nodata": value, "data_type": "uint16"}]} if where != "asset" else {"nodata": value}

    assets = {
        "red": (tif(tmp_path / "red.tif", red), said(0)), "nir": (tif(tmp_path / "nir.tif", nir), said(65535)),
        "scl": tif(tmp_path / "scl.tif", quality),
    }  # fmt: skip
    imagery = open_imagery(save(tmp_path, [item("a", assets)]), mask={"band": "scl", "invalid": [2]})
    assert imagery.bands == ("red", "nir")
    expected = np.concatenate([np.where(red == 0, np.nan, red), np.where(nir == 65535, np.nan, nir)])
    expected[:, quality[0] == 2] = np.nan
    np.testing.assert_array_equal(whole(imagery)[0], expected.astype("float32"))
    given = open_imagery(tmp_path, bands=["red"], nodata=50)
    np.testing.assert_array_equal(whole(given)[0], np.where(red == 50, np.nan, red).astype("float32"))


def test_a_stated_nodata_in_a_fresh_process(tmp_path):
    """Without rioxarray's accessor having been imported by somebody else."""
    import subprocess
    import sys

    red = numbers(0)
    red[0, :5] = 0
    save(tmp_path, [item("a", {"red": (tif(tmp_path / "red.tif", red), {"raster:bands": [{"nodata": 0}]})})])
    code = (
        "import sys, numpy as np; from causalsat.imagery import open_imagery; i = open_imagery(sys.argv[1]); "
        "print(int(np.isnan(i.read_window(0, 0, 20, 20)).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "100", done.stderr


def scaled_items(folder: Path, early=(1e-4, 0.0), late=(1e-4, -0.1)) -> Path:
    """1500 before and 2500 after are one reflectance."""
    items = []
    for year, value, gain in ((2021, 1500, early), (2022, 2500, late)):
        file = tif(folder / f"s{year}.tif", np.full((1, 20, 20), value, "uint16"))
        words = {} if gain is None else {"raster:bands": [{"scale": gain[0], "offset": gain[1]}]}
        items.append(item(f"s{year}", {"red": (file, words)}, f"{year}-03-05T08:00:00Z"))
    return save(folder, items)


def test_offsets_that_items_state(tmp_path):
    folder = scaled_items(tmp_path)
    with pytest.raises(
        ImageryError, match=r's2021 scale=0.0001, offset=0 and s2022 scale=0.0001, offset=-0.1.*"file"'
    ):
        open_imagery(folder)
    np.testing.assert_allclose(whole(open_imagery(folder, scale="file")), 0.15, atol=1e-6)
    with pytest.raises(ImageryError, match=r"s2021 states itself offset=0, and offset=-0\.1 was given"):
        open_imagery(folder, scale=1e-4, offset=[[-0.1], [-0.1]])
    by_day = open_imagery(folder, scale=1e-4, offset={"2015": 0, "2022-01-25": -0.1})
    np.testing.assert_allclose(whole(by_day), 0.15, atol=1e-6)


def test_a_scale_that_all_items_state_is_told(tmp_path):
    folder = scaled_items(tmp_path, early=(1e-4, -0.1))
    with pytest.warns(ImageryWarning, match=r"scale=0.0001, offset=-0.1\), which is not done"):
        got = whole(open_imagery(folder))
    assert set(np.unique(got)) == {1500, 2500}
    with pytest.raises(ImageryError, match="states itself"):
        open_imagery(folder, scale=0.5)
    (tmp_path / "b").mkdir()
    with pytest.raises(ImageryError, match="different scales"):
        open_imagery(scaled_items(tmp_path / "b", early=None))


def test_a_file_and_an_item_that_contradict_each_other(tmp_path):
    file = tif(tmp_path / "a.tif", numbers(), scales=(0.1,), offsets=(0.0,))
    folder = save(tmp_path, [item("a", {"red": (file, {"raster:bands": [{"scale": 0.2}]})})])
    with pytest.raises(ImageryError, match=r"the STAC item a states scale=0.2.*its file scale=0.1"):
        open_imagery(folder, scale="file")


def test_sentinel_2_of_two_baselines_is_told(tmp_path):
    items = [
        item(f"s{k}", {"red": tif(tmp_path / f"s{k}.tif", numbers(k))}, f"202{k}-03-05T08:00:00Z",
             properties={"platform": "Sentinel-2A", "s2:processing_baseline": baseline})
        for k, baseline in ((1, "03.01"), (2, "05.10"))
    ]  # fmt: skip
    folder = save(tmp_path, items)
    with pytest.warns(ImageryWarning, match="baselines before and from 04.00"):
        open_imagery(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageryWarning)
        open_imagery(folder, scale=1e-4, offset={"2015": 0, "2022-01-25": -0.1})
        open_imagery(folder, dates="2021")


@pytest.mark.parametrize(
    ("when", "properties", "day"),
    [
        (None, {"start_datetime": "2015-01-01T00:00:00Z", "end_datetime": "2015-12-31T23:59:59Z"}, "2016-01-01"),
        (None, {"start_datetime": "2015-01-01T00:00:00Z", "end_datetime": "2015-12-31T12:00:00Z"}, "2015-12-31"),
        ("2015-01-01T00:00:00Z", {"end_datetime": "2015-01-16T00:00:00Z"}, "2015-01-16"),
        ("2015-03-05T23:30:00+03:00", {}, "2015-03-05"),
        ("2015-03-05T08:00:00.123456Z", {}, "2015-03-05"),
    ],
)
def test_items_of_periods_have_the_day_of_their_end(tmp_path, when, properties, day):
    """Solar days at 33 degrees east, two hours before UTC's midnight."""
    made = item("a", {"red": tif(tmp_path / "a.tif", numbers())}, when, properties=properties)
    folder = save(tmp_path, [made])
    imagery = open_imagery(folder)
    assert imagery.days == (day,)
    year = day[:4] if when else "2015"
    assert open_imagery(folder, dates=slice(year, year)).days == (day,)
    if when is None:
        with pytest.raises(ImageryError, match="no image before"):
            imagery.images_before("2015-06-01")


def test_items_without_a_date(tmp_path):
    folder = save(tmp_path, [item("a", {"red": tif(tmp_path / "a.tif", numbers())}, None)])
    with pytest.raises(ImageryError, match="the STAC item a has no date"):
        open_imagery(folder)


def test_overlapping_items_of_a_day_give_whole_pixels_of_one(tmp_path):
    """The earlier one on top, as rasterio.merge joins them in that order; no pixel mixes two items."""
    from rasterio.merge import merge

    first, second = (np.concatenate([numbers(k, "uint8"), numbers(k + 1, "uint8")]) for k in (0, 5))
    first[:, 5:12, 8:] = 0
    files = [tif(tmp_path / "a.tif", first, nodata=0), tif(tmp_path / "b.tif", second, east=120, nodata=0)]
    words = {"eo:bands": [{"name": "red"}, {"name": "nir"}]}
    items = [
        item("late", {"image": (files[1], words)}, "2015-03-05T08:00:10Z"),
        item("early", {"image": (files[0], words)}, "2015-03-05T08:00:00Z"),
    ]
    imagery = open_imagery(save(tmp_path, items))
    assert imagery.bands == ("red", "nir")
    assert imagery.shape == (20, 32)
    joined, transform = merge(files)
    assert tuple(imagery.transform)[:6] == tuple(transform)[:6]
    np.testing.assert_array_equal(whole(imagery)[0], np.where(joined == 0, np.nan, joined.astype("float32")))


def test_bands_by_asset_name_and_common_name(tmp_path):
    two = np.concatenate([numbers(1), numbers(2)])
    assets = {
        "B04": (tif(tmp_path / "a.tif", numbers()), {"eo:bands": [{"name": "B04", "common_name": "red"}]}),
        "pair": (tif(tmp_path / "b.tif", two), {"bands": [{"name": "p", "eo:common_name": "nir"}, {"name": "q"}]}),
        "unnamed": (tif(tmp_path / "c.tif", two), {"eo:bands": [{"full_width_half_max": 0.1}, {}]}),
        "thumbnail": (tif(tmp_path / "d.tif", two), {"roles": ["thumbnail"]}),
        "metadata": ("m.xml", {"type": "application/xml", "roles": ["metadata"]}),
    }
    folder = save(tmp_path, [item("a", assets)])
    assert open_imagery(folder).bands == ("B04", "p", "q", "unnamed.1", "unnamed.2")
    for bands, names, order in [
        (["red"], ("red",), [numbers()]),
        (["nir", "B04"], ("nir", "B04"), [two[:1], numbers()]),
        ({"x": "q", "y": "pair.1"}, ("x", "y"), [two[1:], two[:1]]),
        ("unnamed", ("unnamed.1", "unnamed.2"), [two]),
    ]:
        imagery = open_imagery(folder, bands=bands)
        assert imagery.bands == names
        np.testing.assert_array_equal(whole(imagery)[0], np.concatenate(order))
    with pytest.raises(ImageryError, match=r"no asset and no band 'swir'.*check bands="):
        open_imagery(folder, bands=["swir"])


def test_assets_of_two_resolutions_and_a_quality_band(tmp_path):
    """Bands of 10 m, one of 20 m and a quality band of 20 m: each at the nearest pixel, as rasterio warps them."""
    fine, coarse = numbers(), numbers(1, side=10)
    quality = (numbers(2, "uint8", side=10) % 3).astype("uint8")
    assets = {
        "red": tif(tmp_path / "a.tif", fine), "swir": tif(tmp_path / "b.tif", coarse, side=20),
        "scl": tif(tmp_path / "c.tif", quality, side=20),
    }  # fmt: skip
    imagery = open_imagery(save(tmp_path, [item("a", assets)]), mask={"band": "scl", "invalid": [0]})
    expected = np.concatenate([fine, coarse.repeat(2, axis=1).repeat(2, axis=2)]).astype("float32")
    expected[:, quality[0].repeat(2, axis=0).repeat(2, axis=1) == 0] = np.nan
    np.testing.assert_array_equal(whole(imagery)[0], expected)
    assert imagery.shape == (20, 20)
    np.testing.assert_array_equal(whole(imagery.sel(bands=["swir"]))[0], expected[1:])


def test_another_grid_equals_odc_stac(tmp_path):
    """An independent reader on another grid: odc-stac, which warps with GDAL; pixels agree but for rounding."""
    odc = pytest.importorskip("odc.stac")
    pystac = pytest.importorskip("pystac")
    file = tif(tmp_path / "a.tif", numbers(side=60), nodata=0)
    west, north = Transformer.from_crs(CRS, 4326, always_xy=True).transform(500000, 100000)
    east, south = Transformer.from_crs(CRS, 4326, always_xy=True).transform(500600, 99400)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    made = item(
        "a", {"red": file}, geometry={"type": "Polygon", "coordinates": [ring]}, bbox=[west, south, east, north],
        properties={"proj:epsg": 32636, "proj:shape": [60, 60], "proj:transform": [10, 0, 500000, 0, -10, 100000]},
        stac_extensions=["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
    )  # fmt: skip
    folder = save(tmp_path, [made])
    for options in ({"resolution": 25}, {"crs": "EPSG:3857", "resolution": 13}, {"crs": CRS, "resolution": 10}):
        loaded = odc.load([pystac.Item.from_file(str(tmp_path / "a.json"))], bands=["red"], **options)["red"]
        imagery = open_imagery(folder, **options)
        assert imagery.shape == loaded.shape[1:]
        np.testing.assert_allclose(imagery.bounds[:1], float(loaded.odc.geobox.boundingbox.left))
        ours, other = whole(imagery)[0, 0], np.where(loaded[0] == 0, np.nan, loaded[0].astype("float32"))
        same = (ours == other) | (np.isnan(ours) & np.isnan(other))
        assert same.mean() > 0.98, options
    np.testing.assert_array_equal(ours, other)  # the grid of the file itself


def test_items_in_two_systems(tmp_path):
    """Two zones: refused without crs=; with it each pixel is that of the file that holds its centre."""
    near = rasterio.Affine(10, 0, 166000, 0, -10, 100000)
    files = [
        tif(tmp_path / "a.tif", numbers(1)),
        tif(tmp_path / "b.tif", numbers(2), crs="EPSG:32637", transform=near),
    ]
    boxes = ([33.0, 0.8, 33.1, 0.91], [36.0, 0.8, 36.1, 0.91])
    items = [item(f"s{k}", {"red": files[k]}, bbox=boxes[k]) for k in (0, 1)]
    folder = save(tmp_path, items)
    with pytest.raises(ImageryError, match=r"cannot be put on one grid.*pass crs= and resolution="):
        open_imagery(folder)
    with pytest.raises(ImageryError, match="pass resolution="):
        open_imagery(folder, crs="EPSG:4326")
    imagery = open_imagery(folder, crs="EPSG:4326", resolution=0.0001, bbox=(36.0, 0.8, 36.01, 0.91))
    x, y = 166105.0, 99895.0
    lon, lat = Transformer.from_crs(32637, 4326, always_xy=True).transform(x, y)
    place = geopandas.GeoSeries.from_xy([lon], [lat], crs=4326)
    got = imagery.chips(place, size_px=1, min_valid=0).values.ravel()
    assert numbers(2)[0, 10, 10] in got


def test_a_grid_cut_to_a_bbox(tmp_path):
    file = tif(tmp_path / "a.tif", numbers(side=60))
    folder = save(tmp_path, [item("a", {"red": file})])
    transform = Transformer.from_crs(CRS, 4326, always_xy=True)
    west, north = transform.transform(500105, 99895)
    east, south = transform.transform(500195, 99705)
    imagery = open_imagery(folder, bbox=(west, south, east, north))
    top, left = round((100000 - imagery.bounds[3]) / 10), round((imagery.bounds[0] - 500000) / 10)
    rows, cols = imagery.shape
    assert (abs(top - 10) <= 1, abs(left - 10) <= 1, abs(rows - 20) <= 2, abs(cols - 10) <= 2) == (True,) * 4
    np.testing.assert_array_equal(whole(imagery)[0], numbers(side=60)[:, top : top + rows, left : left + cols])
    with pytest.raises(ImageryNotFoundError, match=r"no item.*bbox="):
        open_imagery(folder, bbox=(10, 10, 11, 11))


def test_items_by_id_of_one_day_are_refused(tmp_path):
    items = [item(f"s{k}", {"red": tif(tmp_path / f"{k}.tif", numbers(k))}) for k in (0, 1)]
    folder = save(tmp_path, items)
    with pytest.raises(ImageryError, match=r'groupby="id".*several images of 2015-03-05'):
        open_imagery(folder, groupby="id")
    assert open_imagery(folder).days == ("2015-03-05",)


def test_collections_are_selected(tmp_path):
    items = [item(f"s{k}", {"red": tif(tmp_path / f"{k}.tif", numbers(k))}, collection=f"c{k}") for k in (0, 1)]
    folder = save(tmp_path, items)
    np.testing.assert_array_equal(whole(open_imagery(folder, collections=["c1"]))[0], numbers(1))


BAD = {
    "an asset that is missing": (lambda t: [item("a", {"red": None})], ImageryNotFoundError, "no such raster.*none"),
    "an asset on the net": (
        lambda t: [item("a", {"red": "x.tif"}, href=NET + "/{}")], ImageryError, "lies on the net.*network=True"
    ),
    "an asset behind vsicurl": (
        lambda t: [item("a", {"red": "x.tif"}, href=f"/vsicurl/{NET}/{{}}")], ImageryError, "on the net.*network=True"
    ),
    "an item on the net": (
        lambda t: [item("a", {"red": tif(t / "a.tif", numbers())})], ImageryError, "on the net.*network=True"
    ),
    "no system, and an unknown EPSG code": (
        lambda t: [item("a", {"red": (tif(t / "a.tif", numbers(), crs=None), {"proj:epsg": 999999})})], ImageryError,
        "EPSG:999999.*cannot be read",
    ),
    "no assets of pixels": (
        lambda t: [item("a", {"m": ("m.xml", {"type": "application/xml"})})], ImageryError, "no asset of pixels"
    ),
    "assets that differ": (
        lambda t: [item("a", {"red": tif(t / "a.tif", numbers())}), item("b", {"nir": tif(t / "b.tif", numbers())})],
        ImageryError, "no asset of pixels in common.*bands=",
    ),
    "no properties": (lambda t: [{**item("a", {}), "properties": None, "assets": {}}], ImageryError, "no date"),
    "a bbox of words": (
        lambda t: [item("a", {"red": tif(t / "a.tif", numbers())}, bbox=["w", 1, 2, 3])], ImageryError,
        "cannot be read as STAC",
    ),
    "a transform of words": (
        lambda t: [item("a", {"red": (tif(t / "a.tif", numbers()), {"proj:transform": ["x"]})})], ImageryError,
        "cannot be read as STAC",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_items(tmp_path, make, kind, message, request):
    folder = save(tmp_path, make(tmp_path))
    if "an item on the net" in request.node.name:
        head = json.loads((tmp_path / "catalog.json").read_text())
        head["links"].append({"rel": "item", "href": f"{NET}/b.json"})
        (tmp_path / "catalog.json").write_text(json.dumps(head))
    with pytest.raises(ImageryError, match=f"(?s){message}") as caught:
        open_imagery(folder)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "Sandwich"}', "its type is 'Sandwich'"),
        ("[1]", "cannot be read as STAC"), ("{", "cannot be read"),
        ('{"type": "Catalog", "id": "x", "links": [{"rel": "item", "href": "./gone.json"}]}', "gone.json.*names it"),
        ('{"type": "Catalog", "id": "x", "links": []}', "no item of .* fits"),
        ('{"type": "FeatureCollection", "features": [3]}', "cannot be read as STAC"),
    ],
)  # fmt: skip
def test_bad_catalogues(tmp_path, text, message):
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(ImageryError, match=f"(?s){message}"):
        open_imagery(tmp_path)


def test_a_catalogue_that_names_itself(tmp_path):
    folder = save(tmp_path, [item("a", {"red": tif(tmp_path / "a.tif", numbers())})])
    head = json.loads((tmp_path / "catalog.json").read_text())
    head["links"].append({"rel": "child", "href": "./catalog.json"})
    (tmp_path / "catalog.json").write_text(json.dumps(head))
    np.testing.assert_array_equal(whole(open_imagery(folder))[0], numbers())


def test_a_file_of_an_item_that_changes_is_read_anew(tmp_path):
    folder = save(tmp_path, [item("a", {"red": tif(tmp_path / "a.tif", numbers())})])
    place = geopandas.GeoSeries.from_xy([500105], [99895], crs=CRS)
    options = {"size_px": 3, "cache": tmp_path / "cache"}
    np.testing.assert_array_equal(open_imagery(folder).chips(place, **options).values[0, 0], numbers()[:, 9:12, 9:12])
    tif(tmp_path / "a.tif", numbers(5))
    np.testing.assert_array_equal(
        open_imagery(folder).chips(place, **options).values[0, 0], numbers(5)[:, 9:12, 9:12]
    )


def test_bands_that_some_items_lack_are_told(tmp_path):
    tif(tmp_path / "a.tif", numbers(1))
    items = [
        item("one", {"red": "a.tif", "nir": "a.tif"}),
        item("two", {"red": "a.tif"}, "2016-03-05T08:00:00Z"),
    ]
    save(tmp_path, items)
    with pytest.warns(ImageryWarning, match=r"nir \(1 of 2 items lack it\)"):
        imagery = open_imagery(tmp_path)
    assert imagery.bands == ("red",)
    assert len(imagery.days) == 2
