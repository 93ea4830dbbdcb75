"""The same map on a dask cluster."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from causalsat.mapping import map_effects

QUIET = {"progress": False, "png": False, "html": False}
distributed = pytest.importorskip("distributed", reason="extra 'distributed'")


def pixels_of(path):
    with rasterio.open(path) as raster:
        return raster.read()


def test_threads_of_a_cluster_write_the_same_pixels(model, imagery, tmp_path):
    local = map_effects(model, imagery, None, 60, tmp_path / "local.tif", tile_px=15, **QUIET)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        result = map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, client=client, **QUIET)
    assert result.job == local.job
    np.testing.assert_array_equal(pixels_of(result.path), pixels_of(local.path))


@pytest.mark.slow
def test_two_processes_write_the_same_pixels(model, imagery, tmp_path):
    import cloudpickle
    import map_toys

    cloudpickle.register_pickle_by_value(map_toys)
    local = map_effects(model, imagery, None, 60, tmp_path / "local.tif", tile_px=15, **QUIET)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        result = map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, client=client, **QUIET)
    np.testing.assert_array_equal(pixels_of(result.path), pixels_of(local.path))


def test_an_error_on_a_worker_is_raised_here(model, imagery, tmp_path, monkeypatch):
    from map_toys import ChipMeans

    def broken(self, X):
        raise ArithmeticError("from a worker")

    monkeypatch.setattr(ChipMeans, "transform", broken)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(ArithmeticError, match="from a worker"),
    ):
        map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, client=client, **QUIET)


@pytest.mark.slow
def test_workers_compute_with_one_torch_thread(imagery, trial, tmp_path):
    """Also in their first tile, before which torch was not imported there."""
    from sklearn.pipeline import make_pipeline

    from causalsat import DoublyRobustEffect, ImageEncoder, RandomConvFeatures

    encoder = ImageEncoder(imagery, 240.0, RandomConvFeatures(8), n_components=2)
    model = make_pipeline(encoder, DoublyRobustEffect(random_state=0))
    model.fit(trial, np.arange(len(trial)) / 9, doublyrobusteffect__treatment=np.arange(len(trial)) % 2)

    def threads():
        import torch

        return torch.get_num_threads()

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(lambda: __import__("os").environ.update(OMP_NUM_THREADS="2"))
        map_effects(model, imagery, None, 120, tmp_path / "e.tif", client=client, **QUIET)
        assert list(client.run(threads).values()) == [1]


@pytest.mark.parametrize("what", ["scheduler", "workers"])
def test_a_lost_cluster_is_said_to_be_and_the_same_call_goes_on(model, imagery, tmp_path, monkeypatch, what):
    """The tiles that were finished before are kept, and only the others are computed."""
    import threading

    from causalsat.exceptions import ClusterError
    from causalsat.mapping import cluster as module
    from causalsat.mapping import effects_map

    fresh = map_effects(model, imagery, None, 60, tmp_path / "f.tif", tile_px=15, **QUIET)
    whole, done, go_on = module.map_tile, [], threading.Event()

    def slow_tile(job, tile):
        if len(done) >= 3:
            go_on.wait(20)  # while the cluster is lost
        done.append(whole(job, tile))
        return done[-1]

    monkeypatch.setattr(module, "map_tile", slow_tile)
    monkeypatch.setattr(module, "PATIENCE", 3.0)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def lose():
            while len(done) < 3:
                threading.Event().wait(0.05)
            if what == "scheduler":
                cluster.scheduler.loop.add_callback(cluster.scheduler.close)
            else:
                cluster.scale(0)

        threading.Thread(target=lose, daemon=True).start()
        with pytest.raises(ClusterError, match=f"{what}.* lost.*run the same call: finished tiles are kept"):
            map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, client=client, **QUIET)
        go_on.set()
    kept = len(list((tmp_path / "e.tif.tiles").glob("*.npy")))
    assert kept >= 3
    here = []
    monkeypatch.setattr(effects_map, "map_tile", lambda job, tile: here.append(whole(job, tile)))
    result = map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, **QUIET)
    np.testing.assert_array_equal(pixels_of(result.path), pixels_of(fresh.path))


def test_what_is_no_client_is_refused_before_the_work(model, imagery, tmp_path, monkeypatch):
    import sys

    from causalsat.exceptions import MissingExtraError, ParameterError

    with pytest.raises(ParameterError, match=r"client='tcp://1', a str.*distributed.Client"):
        map_effects(model, imagery, None, 60, tmp_path / "e.tif", client="tcp://1", **QUIET)
    monkeypatch.setitem(sys.modules, "distributed", None)  # as where it is not installed
    with pytest.raises(MissingExtraError, match=r"pip install 'causalsat\[distributed\]', or leave client out"):
        map_effects(model, imagery, None, 60, tmp_path / "e.tif", client=object(), **QUIET)
    assert not list(tmp_path.glob("e.tif*"))


@pytest.mark.parametrize(("n_devices", "taken"), [(2, [0, 1, 0]), (1, []), (0, [])])
def test_workers_of_a_host_take_its_gpus_in_turn(monkeypatch, n_devices, taken):
    import torch

    from causalsat.encoders.device import share_devices

    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for rank in range(3):
        share_devices(rank)
    assert chosen == taken


def test_each_tile_is_mapped_by_a_worker_that_knows_its_rank(model, imagery, tmp_path, monkeypatch):
    from causalsat.mapping import cluster as module

    seen = []
    monkeypatch.setattr(module, "share_devices", seen.append)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = map_effects(model, imagery, None, 60, tmp_path / "e.tif", tile_px=15, client=client, **QUIET)
    here = map_effects(model, imagery, None, 60, tmp_path / "f.tif", tile_px=15, **QUIET)
    assert set(seen) == {0, 1}
    np.testing.assert_array_equal(there.to_xarray(), here.to_xarray())
