"""Ctrl-C and SIGTERM at random moments of fits, comparisons, analyses, maps and commands, and the same call again."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from fault_jobs import map_of, world
from fault_runner import Case

import causalsat
from causalsat.base import EffectEstimator
from causalsat.risk_base import SelectiveEstimator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "contract"))

N_UNITS = 120


def interrupted(job: Callable[[], Any], seconds: float, number: int, after: Callable[[], Any] = lambda: None) -> Any:
    """Run a job in a child and send it a signal after a time.

    Returns
    -------
    tuple
        "finished" and what the job gives, "interrupted" and what ``after`` gives, "error" and its words, or
        "signal" and its number.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            end = ("finished", job())
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            end = ("interrupted", after())
        except BaseException as error:
            end = ("error", f"{type(error).__name__}: {error}"[:500])
        with contextlib.suppress(BaseException), open(write, "wb") as file:
            file.write(pickle.dumps(end))
        os._exit(0)
    os.close(write)
    time.sleep(max(seconds, 0.0))
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
    with open(read, "rb") as file:
        content = file.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "signal", os.WTERMSIG(status)
    return pickle.loads(content) if content else ("error", "no answer")  # of our own child


def seconds_of(job: Callable[[], Any]) -> float:
    """Clock seconds of a job that was run once before."""
    start = time.monotonic()
    job()
    return time.monotonic() - start


def _settle(end: Any, expected: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether an interrupted job ended as it may: finished with the right result, or in one of the allowed ways."""
    kind, value = end
    if kind == "error":
        raise RuntimeError(value)
    return bool(value == expected) if kind == "finished" else end in allowed


# ---------------------------------------------------------------------- fits
def estimators() -> list[type]:
    """Every public estimator of effects, risks and outcomes."""
    found = [getattr(causalsat, name) for name in causalsat.__all__]
    return [k for k in found if isinstance(k, type) and issubclass(k, EffectEstimator | SelectiveEstimator)]


def _job_of(kind: type) -> Callable[[], tuple[Any, Callable[[Any], bytes]]]:
    """Makes an unfitted estimator, and a function that fits it and gives its predictions."""
    rng = np.random.default_rng(0)
    if issubclass(kind, SelectiveEstimator):
        X, t = rng.standard_normal((N_UNITS, 3)), np.arange(N_UNITS) % 2
        y = np.where(t == 1, (X[:, 0] + rng.standard_normal(N_UNITS) > 0).astype(float), np.nan)
        if "Outcome" in kind.__name__:
            y = np.where(t == 1, X[:, 0] + rng.standard_normal(N_UNITS), np.nan)
        groups: dict[str, Any] = {}
    else:
        from contract_worlds import world_of

        trial = world_of(kind, N_UNITS)
        X, y, t, groups = trial.X, trial.y, trial.t, {"groups": trial.groups}

    def make() -> tuple[Any, Callable[[Any], bytes]]:
        settings = dict(getattr(kind, "_contract_parameters", {}))
        made = kind(**settings)
        if "random_state" in made.get_params():
            made.set_params(random_state=0)

        def fit(estimator: Any) -> bytes:
            return np.asarray(estimator.fit(X, y, treatment=t, **groups).predict(X)).tobytes()

        return made, fit

    return make


def fits(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """Ctrl-C at random moments of a fit: the right predictions, or an interrupt and no fitted estimator."""
    del folder
    for kind in estimators():
        make = _job_of(kind)
        estimator, fit = make()
        try:
            expected = fit(estimator)
            length = seconds_of(lambda make=make: make()[1](make()[0]))
        except causalsat.exceptions.CausalsatError as error:  # a package of an extra is not installed
            sys.stderr.write(f"{kind.__name__}: {error}\n")
            continue
        for share in np.random.default_rng(seed).uniform(0.0, 1.0, moments):

            def run(make: Any = make, share: float = share, length: float = length, right: bytes = expected) -> bool:
                estimator, fit = make()

                def left() -> list[str]:
                    return [name for name in vars(estimator) if name.endswith("_") and not name.endswith("__")]

                end = interrupted(lambda: fit(estimator), share * length, signal.SIGINT, left)
                return _settle(end, right, (("interrupted", []),))

            yield Case(f"{kind.__name__} at {share:.0%}", run, warm=False, seconds=200)


# ---------------------------------------------------------------------- comparisons, analyses, maps
def _trial(n_units: int = 160) -> Any:
    from causalsat.simulate import satellite_trial

    return satellite_trial("smooth", n_units=n_units, n_sites=36, size_px=256, seed=1).study()


def comparisons(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """A comparison with a folder of finished folds, stopped at random moments and called again: the same table."""
    study = _trial()
    models = [causalsat.DoublyRobustEffect(random_state=0), causalsat.TLearnerEffect(n_bootstrap=10, random_state=0)]

    def job(where: Path) -> bytes:
        options = {"cv": 3, "n_bootstrap": 20, "folder": where, "progress": False}
        return causalsat.compare(study, ["covariates"], models, **options).to_dataframe().to_csv().encode()

    expected = job(folder / "whole")
    length = seconds_of(lambda: job(folder / "timed"))
    for k, share in enumerate(np.random.default_rng(seed).uniform(0.0, 1.0, moments)):
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]

        def run(k: int = k, share: float = share, number: int = number) -> bool:
            where = folder / f"c{k}"
            end = interrupted(lambda: job(where), share * length, number)
            allowed = (("interrupted", None), ("signal", int(signal.SIGTERM)))
            return _settle(end, expected, allowed) and job(where) == expected

        yield Case(f"{signal.Signals(number).name} at {share:.0%}", run)


def analyses(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """An analysis and its outputs, interrupted at random moments; the same call again writes the same metrics."""
    study = _trial()
    model = causalsat.image_model(
        study, causalsat.DoublyRobustEffect(modifiers="img*", random_state=0), n_components=3
    )

    def job(where: Path) -> bytes:
        found = causalsat.analyse(study, model, n_folds=3, n_permutations=19, n_bootstrap=20, progress=False)
        found.write(where, resolution=1920, progress=False)
        return (where / "metrics.json").read_bytes()

    expected = job(folder / "whole")
    length = seconds_of(lambda: job(folder / "timed"))
    for k, share in enumerate(np.random.default_rng(seed).uniform(0.0, 1.0, moments)):
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]

        def run(k: int = k, share: float = share, number: int = number) -> bool:
            where = folder / f"a{k}"
            end = interrupted(lambda: job(where), share * length, number)
            allowed = (("interrupted", None), ("signal", int(signal.SIGTERM)))
            return _settle(end, expected, allowed) and job(where) == expected

        yield Case(f"{signal.Signals(number).name} at {share:.0%}", run)


def maps(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """A map stopped by Ctrl-C or SIGTERM at random moments and called again: the same pixels, and nothing left."""
    imagery, model = world(folder)
    whole = map_of(imagery, model, folder / "whole.tif").tobytes()
    length = seconds_of(lambda: map_of(imagery, model, folder / "timed.tif"))
    for k, share in enumerate(np.random.default_rng(seed).uniform(0.0, 1.0, moments)):
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]

        def run(k: int = k, share: float = share, number: int = number) -> bool:
            out = folder / f"k{k}.tif"
            end = interrupted(lambda: map_of(imagery, model, out).tobytes(), share * length, number)
            allowed = (("interrupted", None), ("signal", int(signal.SIGTERM)))
            again = map_of(imagery, model, out).tobytes()
            left = [path.name for path in folder.iterdir() if path.name.startswith(f"k{k}.tif.")]
            return _settle(end, whole, allowed) and again == whole and not left

        yield Case(f"{signal.Signals(number).name} at {share:.0%}", run)


def commands(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """``causalsat map`` stopped at random moments: exit code 130 after Ctrl-C; again, the same pixels."""
    imagery, _ = world(folder)
    rng = np.random.default_rng(0)
    import geopandas

    spot = rng.uniform(12, 148, (60, 2))
    where = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(500000 + 10 * spot[:, 0], 100000 - 10 * spot[:, 1]), crs=32636
    )
    from sklearn.pipeline import make_pipeline

    encoder = causalsat.ImageEncoder(imagery, 90, causalsat.RandomConvFeatures(n_features=8), n_components=2)
    model = make_pipeline(encoder, causalsat.DoublyRobustEffect(random_state=0))
    y, t = rng.standard_normal(60), np.arange(60) % 2
    causalsat.save(model.fit(where, y, doublyrobusteffect__treatment=t), folder / "m.safetensors")
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # the background ignores it
    start = f"{handler}; from causalsat.cli import main; main()"

    def command(out: Path) -> list[str]:
        return [sys.executable, "-W", "ignore", "-c", start, "map", str(folder / "m.safetensors"), "--imagery",
                str(folder / "world.tif"), "--resolution", "40", "--out", str(out), "--quiet"]  # fmt: skip

    def pixels(out: Path) -> bytes:
        done = subprocess.run(command(out), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-300:])
        with rasterio.open(out) as raster:
            return raster.read().tobytes()

    begin = time.monotonic()
    whole = pixels(folder / "whole.tif")
    length = time.monotonic() - begin
    for k, share in enumerate(np.random.default_rng(seed).uniform(0.1, 1.0, moments)):
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]

        def run(k: int = k, share: float = share, number: int = number) -> bool:
            out = folder / f"m{k}.tif"
            with subprocess.Popen(
                command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as child:
                time.sleep(share * length)
                child.send_signal(number)
                words = child.communicate()[1]
            good = (0, 130) if number == signal.SIGINT else (0, -signal.SIGTERM)
            if child.returncode not in good or "Traceback" in words:
                raise RuntimeError(f"exit code {child.returncode}: {words[-300:]}")
            return pixels(out) == whole

        yield Case(f"{signal.Signals(number).name} at {share:.0%}", run, warm=False)
