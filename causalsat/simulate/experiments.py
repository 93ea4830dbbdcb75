"""Trials of several arms, and trials whose treatment not everybody takes up, with known effects that images show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import ParameterError
from causalsat.simulate.fields import stream
from causalsat.simulate.trial import SimulatedTrial, satellite_trial

if TYPE_CHECKING:
    from causalsat.study import Study

__all__ = ["ArmsTrial", "TakeUpTrial", "arms_trial", "take_up_trial"]


@dataclass(frozen=True)
class ArmsTrial:
    """A trial of three arms, its imagery and the truth.

    Attributes
    ----------
    base : SimulatedTrial
        The landscape, places and people.
    units : geopandas.GeoDataFrame
        As of a :class:`SimulatedTrial`, with ``arm`` (control, cash, training) in the place of ``treatment``, and the
        true effects against control ``tau_cash`` and ``tau_training``.
    truth : dict
        Average effects of the units: ``cash``, ``training``.
    """

    base: SimulatedTrial = field(repr=False)
    units: Any = field(repr=False)
    truth: dict[str, float]

    def study(self) -> Study:
        """The trial as a :class:`causalsat.Study` of three arms, without the truth."""
        units = self.units.drop(columns=[c for c in self.units if c.startswith(("tau", "mu0", "baseline"))])
        return _study(self.base, units, treatment="arm", control="control")

    def draw_outcomes(self, seed: int) -> ArmsTrial:
        """Same places and people; assignment, village effects and noise drawn anew."""
        return _draw_arms(self.base, seed)


@dataclass(frozen=True)
class TakeUpTrial:
    """A trial whose treatment not everybody takes up, its imagery and the truth.

    Attributes
    ----------
    base : SimulatedTrial
        The landscape, places and people.
    units : geopandas.GeoDataFrame
        As of a :class:`SimulatedTrial`: ``treatment`` is the assignment and ``received`` the take-up; with the truth
        ``tau`` (effect of taking up, for everybody), ``compliance`` (probability to be a complier) and ``type``
        (complier, never, always).
    truth : dict
        ``complier`` (mean effect of the compliers), ``itt`` (of the units) and ``compliance``.
    """

    base: SimulatedTrial = field(repr=False)
    units: Any = field(repr=False)
    truth: dict[str, float]
    settings: tuple[float, float, float]

    def study(self) -> Study:
        """The trial as a :class:`causalsat.Study` with take-up, without the truth."""
        hidden = [c for c in self.units if c.startswith(("tau", "mu0", "baseline", "compliance", "type"))]
        return _study(self.base, self.units.drop(columns=hidden), take_up="received")

    def draw_outcomes(self, seed: int) -> TakeUpTrial:
        """Same places and people; types, assignment, village effects and noise drawn anew."""
        return _draw_take_up(self.base, *self.settings, seed)


def arms_trial(*, seed: int = 0, **options: Any) -> ArmsTrial:
    """Simulate a trial with three arms, whose villages are assigned to control, cash or training by thirds.

    The effect of cash is that of :func:`satellite_trial`, ``tau``, which the images show; that of training is 0.3
    where cash has its mean effect, and falls by half of what that of cash rises.

    Parameters
    ----------
    seed : int
        Seed of everything.
    **options
        Of :func:`satellite_trial`, such as ``n_units``, ``n_sites``, ``size_px``, ``variant``.

    Examples
    --------
    >>> trial = arms_trial(n_units=120, n_sites=12, size_px=192, seed=3)
    >>> trial.units["arm"].nunique(), sorted(trial.truth)
    (3, ['cash', 'training'])
    """
    return _draw_arms(satellite_trial(seed=seed, **options), seed)


def take_up_trial(
    *, compliance: float = 0.6, always: float = 0.0, slope: float = 0.5, seed: int = 0, **options: Any
) -> TakeUpTrial:
    """Simulate a trial in which a share of the units does as assigned.

    Compliers are more frequent where the effect is large (``slope``), and never-takers have lower outcomes, so that a
    comparison by take-up is wrong.

    Parameters
    ----------
    compliance : float
        Average probability to be a complier.
    always : float
        Share of those who take the treatment up in either arm; the rest never do.
    slope : float
        Change of the probability, as a share of ``compliance``, with one standard deviation of the effect.
    seed : int
        Seed of everything.
    **options
        Of :func:`satellite_trial`.

    Raises
    ------
    ParameterError
        If the shares are no shares.

    Examples
    --------
    >>> trial = take_up_trial(compliance=0.6, n_units=400, n_sites=12, size_px=192, seed=1)
    >>> bool(0.4 < trial.truth["compliance"] < 0.8)
    True
    >>> bool((trial.units.received[trial.units.treatment == 0] == 0).all())
    True
    """
    if not 0 < compliance <= 1 or not 0 <= always <= 1 - compliance:
        raise ParameterError(f"compliance={compliance!r}, always={always!r}", expected="shares that sum to 1 at most")
    return _draw_take_up(satellite_trial(seed=seed, **options), compliance, always, slope, seed)


def _draw_arms(base: SimulatedTrial, seed: int) -> ArmsTrial:
    units, rng = base.units.copy(), stream(seed, "arms")
    sites = np.unique(units["site"])
    dealt = rng.permutation(np.resize([0, 1, 2], len(sites)))
    arm = dealt[np.searchsorted(sites, units["site"])]
    cash = units["tau"].to_numpy()
    training = 0.3 - 0.5 * (cash - base.settings.tau_mean)
    village = rng.normal(0, base.settings.site_sd, len(sites))[np.searchsorted(sites, units["site"])]
    noise = rng.normal(0, base.settings.noise_sd[0], len(units))
    effect = np.select([arm == 1, arm == 2], [cash, training], 0.0)
    units["outcome"] = units["baseline"].to_numpy() + village + effect + noise
    units["arm"] = np.array(["control", "cash", "training"])[arm]
    units["tau_cash"], units["tau_training"] = cash, training
    units = units.drop(columns=["treatment", "propensity", "mu0"])
    return ArmsTrial(base, units, {"cash": float(cash.mean()), "training": float(training.mean())})


def _draw_take_up(base: SimulatedTrial, compliance: float, always: float, slope: float, seed: int) -> TakeUpTrial:
    units, rng = base.units.copy(), stream(seed, "take-up")
    sites = np.unique(units["site"])
    home = np.searchsorted(sites, units["site"])
    z = rng.permutation(np.resize([0, 1], len(sites)))[home]
    tau = units["tau"].to_numpy()
    scale = (tau - base.settings.tau_mean) / max(base.settings.tau_sd, 1e-12)
    share = np.clip(compliance * (1 + slope * scale), 0.01, 1 - always)
    u = rng.uniform(size=len(units))
    kind = np.where(u < share, "complier", np.where(u < share + always, "always", "never"))
    received = np.where(kind == "always", 1, np.where(kind == "complier", z, 0))
    village = rng.normal(0, base.settings.site_sd, len(sites))[home]
    noise = rng.normal(0, base.settings.noise_sd[0], len(units))
    units["outcome"] = units["baseline"].to_numpy() + village + tau * received - 0.5 * (kind == "never") + noise
    units["treatment"], units["received"] = z, received
    units["compliance"], units["type"] = share, kind
    units = units.drop(columns=["propensity", "mu0"])
    truth = {
        "complier": float((share * tau).sum() / share.sum()),
        "itt": float((share * tau).mean()),
        "compliance": float(share.mean()),
    }
    return TakeUpTrial(base, units, truth, (compliance, always, slope))


def _study(base: SimulatedTrial, units: Any, **roles: Any) -> Study:
    """The study of the trial with other units and roles, and without strata, in which these arms were not drawn."""
    from causalsat.study import Study

    made = base.study()
    arguments: dict[str, Any] = {"treatment": "treatment", "treatment_date": made.treatment_date, **roles}
    return Study(
        units,
        outcome="outcome",
        cluster="site",
        covariates=made.covariates,
        imagery=made.imagery,
        chip_size_m=made.chip_size_m,
        name="simulated trial",
        **arguments,
    )
