"""Tiles on a dask cluster: what is lost of it is said, and what is finished stays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from causalsat.core.optional import require
from causalsat.encoders.device import share_devices
from causalsat.exceptions import CausalsatError, ClusterError, DataError, ParameterError
from causalsat.mapping.compute import MapJob, map_tile
from causalsat.mapping.tiles import Tile, job_is_there, tile_path, vanished

__all__ = ["check_client", "on_cluster"]

PATIENCE = 60.0  # seconds without any worker, after which the cluster is taken for lost
KEPT = "start the cluster again and run the same call: finished tiles are kept, and only the others are computed"


def check_client(client: Any) -> None:
    """Refuse what is no client of dask's scheduler, before the work.

    Raises
    ------
    MissingExtraError
        If distributed is not installed.
    ParameterError
        If it is something else, or closed.
    """
    require("distributed", "distributed", "a map with client=", "leave client out: the map is computed here")
    from distributed import Client

    if not isinstance(client, Client):
        raise ParameterError(
            f"client={client!r:.60}, a {type(client).__name__}",
            expected="a distributed.Client",
            todo="client=distributed.Client(address_or_cluster)",
        )
    if client.status != "running":
        raise ParameterError(f"a client that is {client.status}", expected="one that is connected", todo=KEPT)


def on_cluster(job: MapJob, tiles: list[Tile], client: Any) -> Iterator[int]:
    """Map the tiles on the cluster's workers; the first error is raised here and the rest is cancelled.

    Raises
    ------
    ClusterError
        If the scheduler or all workers are lost; the tiles that are finished stay.
    DataError
        If workers write to a folder that is not seen here.
    """
    from distributed.client import CancelledError  # no Exception, but what futures of a lost cluster end with

    futures: list[Any] = []
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        shared = client.scatter(replace(job, threads=1), broadcast=True, hash=False)
        ranks = ranks_of_workers(client.nthreads())
        futures = client.map(_map_tile_of, tiles, job=shared, ranks=ranks, pure=False)
        yield from _results(client, futures)
    except (Exception, CancelledError) as error:
        lost = _loss(client, error)
        if lost is None:
            raise
        raise ClusterError(
            f"{lost} while the map was computed", expected="a cluster that stays", todo=KEPT
        ) from error
    finally:
        if client.status == "running":
            client.cancel([f for f in futures if not f.done()])
    absent = [t for t in tiles if not tile_path(job.folder, t).exists()]
    if absent and job_is_there(job.folder):
        raise DataError(
            f"{len(absent)} tiles that workers wrote are not in {job.folder}",
            expected="workers that write to the folder of out",
            todo="write to a folder that all workers share",
        )
    if absent:
        raise vanished(job.folder, absent[0])


def ranks_of_workers(addresses: Iterable[str]) -> dict[str, int]:
    """Which of its host's workers each one is, by address, from 0.

    Examples
    --------
    >>> ranks_of_workers(["tcp://a:2", "tcp://b:1", "tcp://a:1"])
    {'tcp://a:1': 0, 'tcp://a:2': 1, 'tcp://b:1': 0}
    """
    taken: Counter[str] = Counter()
    ranks = {}
    for address in sorted(addresses):
        host = address.rpartition(":")[0]
        ranks[address] = taken[host]
        taken[host] += 1
    return ranks


def _map_tile_of(tile: Tile, *, job: MapJob, ranks: Mapping[str, int]) -> int:
    """Map a tile on a worker, on a GPU of its own where there are several; who joined later takes the first."""
    from distributed import get_worker

    share_devices(ranks.get(get_worker().address, 0))
    return map_tile(job, tile)


def _results(client: Any, futures: list[Any]) -> Iterator[int]:
    """Results as they come."""
    from distributed import as_completed

    finished, seen = as_completed(futures), time.monotonic()
    while not finished.is_empty():
        for future in finished.next_batch(block=False):
            yield future.result()
            seen = time.monotonic()
        if not finished.has_ready():
            time.sleep(0.05)
            if client.status == "running" and _n_workers(client):
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE:
                raise TimeoutError


def _n_workers(client: Any) -> int:
    return len(client.scheduler_info().get("workers", ()))


def _loss(client: Any, error: BaseException) -> str | None:
    """What of the cluster is lost, in words; None where the error is of another kind."""
    from distributed import KilledWorker
    from distributed.client import CancelledError
    from distributed.comm import CommClosedError

    if isinstance(error, CausalsatError) or not isinstance(
        error, KilledWorker | CancelledError | CommClosedError | TimeoutError
    ):
        return None
    if client.status != "running" or isinstance(error, CommClosedError):
        return "the connection to the cluster's scheduler was lost"
    if isinstance(error, KilledWorker):
        return "workers of the cluster died at the same tile again and again, perhaps for want of memory,"
    return "all workers of the cluster were lost"
