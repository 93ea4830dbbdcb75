"""The picture and the page of a map: right colours, extents and words; no network."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

mpl.use("Agg")
import geopandas as gpd
import matplotlib.pyplot as plt

from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import plot_map, save_map
from causalsat.plots.geography import backdrop, nice_below
from causalsat.plots.layers import BANDS, layer_style, read_layers


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def write_map(path, *, low=-1.0, high=2.0, shape=(40, 60), crs=32636, origin=(4e5, 3e5), cell=100.0, **tags):
    """A map whose effect rises from west to east; the first rows are not mapped, the last not supported."""
    rows, cols = shape
    cate = np.broadcast_to(np.linspace(low, high, cols), shape).astype(np.float32).copy()
    support = np.full(shape, 0.6, dtype=np.float32)
    support[-10:] = 0.01
    bands = np.stack([cate, cate * 0 + 0.2, cate - 0.3, cate + 0.3, (cate > 0).astype(np.float32), support])
    bands[:, :5] = np.nan
    profile = {"driver": "GTiff", "dtype": "float32", "nodata": np.nan, "count": 6, "height": rows, "width": cols}
    with rasterio.open(path, "w", crs=crs, transform=from_origin(*origin, cell, cell), **profile) as raster:
        raster.write(bands)
        raster.update_tags(level="0.9", **tags)
        for i, name in enumerate(BANDS, start=1):
            raster.set_band_description(i, name)
    return path


@pytest.fixture
def sites():
    x, y = 4e5 + 100 * np.array([10.0, 30.0, 30.0]), 3e5 - 100 * np.array([20.0, 15.0, 15.0])
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=32636).to_crs(4326)


# ---------------------------------------------------------------------- picture
def test_layers_are_read_with_their_extent_and_tags(tmp_path):
    layers = read_layers(write_map(tmp_path / "e.tif", units="sd"))
    assert layers.extent == (4e5, 4e5 + 6000, 3e5 - 4000, 3e5)
    assert layers.tags["units"] == "sd"
    assert layers.values["cate"].shape == (40, 60)
    assert np.isnan(layers.values["cate"][:5]).all()


def test_large_maps_are_averaged(tmp_path):
    layers = read_layers(write_map(tmp_path / "e.tif"), most=20)
    assert layers.shrink == 3
    assert layers.values["cate"].shape == (14, 20)
    assert layers.values["cate"][-1, 0] == pytest.approx(np.linspace(-1, 2, 60)[:3].mean(), abs=1e-5)


def test_effects_of_both_signs_are_centred_on_zero_and_of_one_sign_are_not(tmp_path):
    both = layer_style(read_layers(write_map(tmp_path / "a.tif")), "cate")
    assert both.low == -both.high
    assert both.high == pytest.approx(2.0, abs=0.05)
    one = layer_style(read_layers(write_map(tmp_path / "b.tif", low=1.0)), "cate")
    assert one.low > 0.9
    assert one.palette != both.palette
    assert (layer_style(read_layers(tmp_path / "a.tif"), "prob_positive").low, both.extend) == (0.0, "neither")


def test_a_share_is_called_so_and_goes_from_none_to_all(tmp_path):
    layers = read_layers(write_map(tmp_path / "e.tif", low=-0.1, high=0.9, contrast="what=compliance"))
    style = layer_style(layers, "cate", "dollars")
    assert (style.title, style.label, style.low, style.high) == ("Share of compliers", "share", 0.0, 1.0)
    assert layer_style(layers, "prob_positive").title == "P(share > 0)"
    plain = layer_style(read_layers(write_map(tmp_path / "c.tif", contrast="what=complier")), "cate", "dollars")
    assert (plain.title, plain.label) == ("Effect on compliers", "effect (dollars)")


def test_figure_has_three_maps_with_titles_legends_and_the_note(tmp_path, sites):
    path = write_map(tmp_path / "e.tif", units="sd", title="My trial", note="heterogeneity not distinguishable")
    figure = plot_map(path, sites=sites)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:3] == ["Effect of treatment", "Uncertainty (posterior sd)", "P(effect > 0)"]
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert "effect (sd)" in labels
    assert "posterior sd (sd)" in labels
    assert figure.get_suptitle().startswith("My trial")
    assert "heterogeneity not distinguishable" in [t.get_text() for t in figure.texts]
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert words == ["trial sites", "unlike the trial: support < 0.05", "not mapped"]
    main = figure.axes[0]
    np.testing.assert_allclose(main.images[0].get_extent(), (4e5, 4e5 + 6000, 3e5 - 4000, 3e5))
    offsets = next(c for c in main.collections if len(c.get_offsets()) == 2).get_offsets()
    np.testing.assert_allclose(sorted(offsets[:, 0]), [4e5 + 1000, 4e5 + 3000], atol=0.01)
    assert [t.get_text() for t in main.texts] == ["1 km"]
    assert all(t.get_text().endswith("°E") for t in main.get_xticklabels())


def test_unsupported_cells_are_hatched(tmp_path):
    ax = plot_map(write_map(tmp_path / "e.tif"), layer="cate")
    hatched = next(c for c in ax.collections if getattr(c, "hatches", None) and "////" in c.hatches)
    drawn = np.vstack([p.vertices for p in hatched.get_paths() if len(p.vertices)])
    assert drawn[:, 1].max() == pytest.approx(3e5 - 3000, abs=100)
    veil = ax.images[1].get_array()
    assert (veil[-10:, :, 3] > 0).all()
    assert (veil[:-10, :, 3] == 0).all()


def test_one_layer_on_given_axes(tmp_path):
    path = write_map(tmp_path / "e.tif")
    _, given = plt.subplots()
    assert plot_map(path, layer="sd", ax=given) is given
    np.testing.assert_array_equal(given.images[0].get_array().filled(np.nan)[5:], np.float32(0.2))
    with pytest.raises(ParameterError, match="cate, sd"):
        plot_map(path, layer="effect")


def test_a_file_is_written_whole_and_pyplot_is_left_alone(tmp_path):
    target = save_map(write_map(tmp_path / "e.tif", crs=4326, origin=(32.0, 3.0), cell=0.01), tmp_path / "e.png")
    picture = plt.imread(target)
    assert picture.shape[0] > 500
    assert picture.shape[1] > 500
    assert picture[..., :3].std() > 0.1
    assert plt.get_fignums() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.png", "e.tif"]


def test_another_raster_is_not_a_map(tmp_path):
    path = tmp_path / "other.tif"
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=1, height=4, width=4) as raster:
        raster.write(np.zeros((1, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="map_effects"):
        plot_map(path)


@pytest.mark.parametrize(("value", "nice"), [(7.3, 5), (0.9, 0.5), (1.0, 1.0), (2500, 2000), (0.031, 0.02)])
def test_round_lengths(value, nice):
    assert nice_below(value) == pytest.approx(nice)


def test_backdrop_is_decimated_stretched_and_transparent_where_invalid():
    import rioxarray  # noqa: F401
    import xarray as xr

    from causalsat.imagery import open_imagery

    pixels = np.tile(np.linspace(0, 1, 300, dtype=np.float32), (3, 200, 1))
    pixels[:, :50] = np.nan
    coords = {"band": ["blue", "green", "red"], "y": 3e5 - 30.0 * np.arange(200), "x": 4e5 + 30.0 * np.arange(300)}
    imagery = open_imagery(xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords).rio.write_crs(32636))
    picture, extent = backdrop(imagery, most=100)
    assert picture.shape == (67, 100, 4)
    assert picture[:16, :, 3].max() == 0
    assert picture[20:, :, 3].min() == 255
    assert (np.diff(picture[-1, :, 0].astype(int)) >= 0).all()
    assert (picture[-1, 0, 0], picture[-1, -1, 0]) == (0, 255)
    assert extent[0] == pytest.approx(4e5 - 15)
    assert extent[3] == pytest.approx(3e5 + 15)


# ---------------------------------------------------------------------- page
@pytest.fixture
def page(tmp_path, sites):
    pytest.importorskip("bokeh", reason="extra 'maps'")
    from causalsat.mapping.page import write_page

    path = write_map(tmp_path / "e.tif", units="sd", note="p = 0.4 <&>", title="A <b>trial</b>")
    return write_page(path, tmp_path / "map.html", sites=sites).read_text(encoding="utf-8")


def test_page_loads_nothing_from_the_network(page):
    markup = re.sub(r"(<script\b[^>]*>).*?</script>", r"\1</script>", page, flags=re.DOTALL)
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", markup)
    assert tags
    assert not [tag for tag in tags if re.search(r"(?:src|href)\s*=", tag)]
    assert "default-src 'none'" in page
    assert "connect-src" not in page


def test_page_says_what_it_shows_and_escapes_words(page):
    assert '<html lang="en">' in page
    assert "<h1>A &lt;b&gt;trial&lt;/b&gt;</h1>" in page
    assert '<p class="note">p = 0.4 &lt;&amp;&gt;</p>' in page
    assert "Posterior effect of treatment in 2,100 cells" in page
    assert "29% of the cells are unlike the places of the trial" in page
    for words in ("Uncertainty (sd)", "P(effect > 0)", "Support", "trial sites", "Opacity of the layer"):
        assert words in page or words.replace(">", "\\u003e") in page or words.replace(">", "&gt;") in page
    assert len(page) < 12e6


def test_page_of_a_large_map_is_averaged_and_says_so(tmp_path):
    pytest.importorskip("bokeh", reason="extra 'maps'")
    from causalsat.mapping.page import write_page

    path = write_map(tmp_path / "e.tif", shape=(900, 1000))
    text = write_page(path, tmp_path / "map.html").read_text(encoding="utf-8")
    assert "averages of 3 by 3 cells" in text
    assert len(text) < 12e6


def test_without_bokeh_the_page_is_left_out_or_refused(tmp_path, monkeypatch):
    from causalsat.exceptions import DataWarning
    from causalsat.mapping.result import MapResult, draw

    monkeypatch.setitem(sys.modules, "bokeh", None)  # as where it is not installed
    path = write_map(tmp_path / "e.tif")
    result = MapResult(path, None, None, 100.0, (40, 60), 2100, 0.9, "", "job")
    with pytest.warns(DataWarning, match=r"pip install 'causalsat\[maps\]'"):
        assert draw(result, None, png=False, html="auto", sites=None, units="", title="").html is None
    with pytest.raises(ParameterError, match="bokeh"):
        draw(result, None, png=False, html=True, sites=None, units="", title="")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw(result, None, png=True, html=False, sites=None, units="", title="")
    assert drawn.png == Path(tmp_path / "e.png")
    assert drawn._repr_png_()[:4] == b"\x89PNG"
