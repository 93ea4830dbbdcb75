"""An interrupted map continues where it stopped, refuses other inputs, and ends with the same pixels."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from map_toys import places, smooth_pixels, toy_model, write_raster

from causalsat.core.fingerprint import fingerprint
from causalsat.exceptions import OutputError, ResumeError
from causalsat.imagery import open_imagery
from causalsat.mapping import effects_map, map_effects
from causalsat.mapping.tiles import Tile, plan_tiles, read_tile, tile_path, write_tile

QUIET = {"progress": False, "png": False, "html": False}
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from map_toys import places, toy_model
from causalsat import map_effects, open_imagery
imagery = open_imagery({raster!r})
model = toy_model(imagery, places(60, imagery.shape, margin=45), 240.0, pause=0.03)
print("mapping", flush=True)
map_effects(model, imagery, None, 60, {out!r}, tile_px=9, progress=False, png=False, html=False)
"""


def pixels_of(path):
    with rasterio.open(path) as raster:
        return raster.read()


class Stop(Exception):
    pass


def stop_after(monkeypatch, n):
    """Let map_effects compute n tiles and then fail."""
    whole = effects_map.map_tile
    done = []

    def map_tile(job, tile):
        if len(done) >= n:
            raise Stop
        done.append(tile)
        return whole(job, tile)

    monkeypatch.setattr(effects_map, "map_tile", map_tile)
    return done


def test_an_interrupted_map_computes_only_what_is_missing(model, imagery, tmp_path, monkeypatch):
    settings = {"region": None, "resolution": 60, "tile_px": 15, **QUIET}
    whole = map_effects(model, imagery, out=tmp_path / "whole.tif", **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Stop):
            map_effects(model, imagery, out=tmp_path / "e.tif", **settings)
    folder = tmp_path / "e.tif.tiles"
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert len(kept) == 5
    assert not (tmp_path / "e.tif").exists()
    assert json.loads((folder / "manifest.json").read_text())["job"] == whole.job
    with monkeypatch.context() as patch:
        stop_after(patch, 100)
        patch.setattr(effects_map, "remove_job", lambda folder: None)
        resumed = map_effects(model, imagery, out=tmp_path / "e.tif", **settings)
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
    assert resumed.job == whole.job
    np.testing.assert_array_equal(pixels_of(resumed.path), pixels_of(whole.path))


def test_a_finished_map_leaves_no_tiles_and_is_not_computed_again(model, imagery, tmp_path, monkeypatch):
    first = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["e.tif"]
    done = stop_after(monkeypatch, 100)
    again = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    assert done == []
    assert again.job == first.job
    map_effects(model, imagery, None, 60, tmp_path / "e.tif", overwrite=True, **QUIET)
    assert len(done) == 1


def test_new_words_reach_a_finished_map_without_computing_it(model, imagery, tmp_path, monkeypatch):
    first = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    before = pixels_of(first.path)
    done = stop_after(monkeypatch, 100)
    map_effects(model, imagery, None, 60, tmp_path / "e.tif", title="New", **QUIET)
    assert done == []
    with rasterio.open(first.path) as raster:
        assert raster.tags()["title"] == "New"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    np.testing.assert_array_equal(pixels_of(first.path), before)


@pytest.mark.parametrize("change", ["level", "resolution", "model", "imagery", "region"])
def test_other_inputs_are_refused_unless_overwritten(model, imagery, trial, tmp_path, monkeypatch, change):
    settings = {"model": model, "imagery": imagery, "region": None, "resolution": 60, "level": 0.9}
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            map_effects(**settings, out=tmp_path / "e.tif", tile_px=15, **QUIET)
    if change == "model":
        settings["model"] = toy_model(imagery, trial.iloc[:-1], 240.0)
    elif change == "imagery":
        settings["imagery"] = open_imagery(write_raster(tmp_path / "other.tif", smooth_pixels(seed=9)))
    else:
        settings[change] = {"level": 0.8, "resolution": 90, "region": (400_300, 298_500, 401_500, 299_900)}[change]
    with pytest.raises(ResumeError, match=r"other inputs: .*overwrite=True"):
        map_effects(**settings, out=tmp_path / "e.tif", tile_px=15, **QUIET)
    forced = map_effects(**settings, out=tmp_path / "e.tif", tile_px=15, overwrite=True, **QUIET)
    fresh = map_effects(**settings, out=tmp_path / "f.tif", tile_px=15, **QUIET)
    np.testing.assert_array_equal(pixels_of(forced.path), pixels_of(fresh.path))


def test_damaged_tiles_are_computed_again(model, imagery, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stop):
            map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, **QUIET)
    tiles = sorted((tmp_path / "e.tif.tiles").glob("*.npy"))
    tiles[0].write_bytes(b"")
    tiles[1].write_bytes(tiles[1].read_bytes()[:-7])
    np.save(tiles[2], np.zeros((6, 2, 2), dtype=np.float32))
    resumed = map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, **QUIET)
    whole = map_effects(model, imagery, None, 60, tmp_path / "f.tif", tile_px=15, **QUIET)
    np.testing.assert_array_equal(pixels_of(resumed.path), pixels_of(whole.path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_a_random_moment_and_resumed(tmp_path, seed):
    raster = write_raster(tmp_path / "scene.tif", smooth_pixels(hole=False))
    script = SCRIPT.format(tests=str(Path(__file__).parent), raster=str(raster), out=str(tmp_path / "e.tif"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"mapping\n"
        folder = tmp_path / "e.tif.tiles"
        wanted = random.Random(seed).randint(1, 25)
        for _ in range(4000):
            if len(list(folder.glob("*.npy"))) >= wanted:
                break
            time.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL
    survivors = list(folder.glob("*.npy"))
    assert wanted <= len(survivors) < 35
    imagery = open_imagery(raster)
    model = toy_model(imagery, places(60, imagery.shape, margin=45), 240.0, pause=0.03)
    resumed = map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=9, **QUIET)
    whole = map_effects(model, imagery, None, 60, tmp_path / "f.tif", tile_px=9, **QUIET)
    assert resumed.job == whole.job
    np.testing.assert_array_equal(pixels_of(resumed.path), pixels_of(whole.path))
    assert not folder.exists()


# ---------------------------------------------------------------------- parts
def test_tiles_cover_every_cell_once():
    counts = np.zeros((23, 31), dtype=int)
    for tile in plan_tiles(23, 31, 8):
        counts[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += 1
    assert (counts == 1).all()


def test_a_tile_file_is_read_back_and_checked(tmp_path):
    path = tile_path(tmp_path, Tile(3, 4, 2, 5))
    values = np.random.default_rng(0).standard_normal((6, 2, 5)).astype(np.float32)
    write_tile(path, values)
    np.testing.assert_array_equal(read_tile(path, (6, 2, 5)), values)
    assert read_tile(path, (6, 5, 2)) is None
    assert read_tile(tmp_path / "none.npy", (6, 2, 5)) is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_fingerprints_follow_content_and_not_identity():
    class Thing:
        _transient = ("cache",)

        def __init__(self, values):
            self.values, self.cache = values, object()

    first = {"a": Thing(np.arange(4.0)), "b": [1, (2.0, None)]}
    same = {"b": [1, (2.0, None)], "a": Thing(np.arange(4.0))}
    assert fingerprint(first) == fingerprint(same)
    for other in (np.arange(4), np.arange(4.0).reshape(2, 2), np.array([0, 1, 2, 3.5]), [0.0, 1.0, 2.0, 3.0]):
        assert fingerprint({**first, "a": Thing(other)}) != fingerprint(first)


def test_what_a_job_left_that_was_killed_after_its_map_was_in_place_is_removed(model, imagery, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(effects_map, "remove_job", lambda folder, job=None: None)  # as if killed just before
        first = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    assert (tmp_path / "e.tif.tiles").is_dir()
    again = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    assert again.job == first.job
    assert [path.name for path in tmp_path.iterdir()] == ["e.tif"]


def test_files_of_others_in_the_folder_of_tiles_stay(model, imagery, tmp_path):
    folder = tmp_path / "e.tif.tiles"
    folder.mkdir()
    np.save(folder / "mine.npy", np.arange(3))
    (folder / "notes.tmp").write_text("mine")
    map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, **QUIET)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.npy", "notes.tmp"]
    assert np.load(folder / "mine.npy").tolist() == [0, 1, 2]


def test_a_file_of_somebody_else_under_the_name_of_a_tile_is_refused(model, imagery, tmp_path):
    folder = tmp_path / "e.tif.tiles"
    folder.mkdir()
    np.save(folder / "r0000000_c0000000.npy", np.arange(3))
    with pytest.raises(ResumeError, match=r"no manifest.*r0000000_c0000000.npy in it is no tile.*move that file"):
        map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, **QUIET)
    assert np.load(folder / "r0000000_c0000000.npy").tolist() == [0, 1, 2]


def test_tiles_behind_a_link_are_neither_written_nor_removed(model, imagery, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    np.save(elsewhere / "r0000000_c0000000.npy", np.arange(3))
    (elsewhere / "manifest.json").write_text("{}")
    (tmp_path / "e.tif.tiles").symlink_to(elsewhere)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="symbolic link"):
            map_effects(model, imagery, None, 60, tmp_path / "e.tif", overwrite=overwrite, **QUIET)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["manifest.json", "r0000000_c0000000.npy"]


def test_a_folder_removed_meanwhile_is_said_to_be(model, imagery, tmp_path, monkeypatch):
    import shutil

    whole, done = effects_map.map_tile, []

    def map_tile(job, tile):
        done.append(tile)
        if len(done) == 5:
            shutil.rmtree(tmp_path / "out")
        return whole(job, tile)

    monkeypatch.setattr(effects_map, "map_tile", map_tile)
    with pytest.raises(ResumeError, match=r"was removed while the map was computed.*run the same call again"):
        map_effects(model, imagery, None, 60, tmp_path / "out" / "e.tif", tile_px=15, **QUIET)
    again = map_effects(model, imagery, None, 60, tmp_path / "out" / "e.tif", tile_px=15, **QUIET)
    fresh = map_effects(model, imagery, None, 60, tmp_path / "f.tif", tile_px=15, **QUIET)
    np.testing.assert_array_equal(pixels_of(again.path), pixels_of(fresh.path))


def test_the_map_has_the_permissions_of_the_umask(model, imagery, tmp_path):
    before = os.umask(0o027)
    try:
        result = map_effects(model, imagery, None, 60, tmp_path / "e.tif", progress=False, png=True, html=False)
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in (result.path, result.png)} == {"0o640"}
