"""What an entry of the data catalogue may say. Unknown keys are refused."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

Kind = Literal["trial", "imagery", "simulated"]
ImageryKind = Literal["raster", "sequence", "zarr", "stac", "embedding"]
Scalar = str | int | float | bool | None
Day = dt.date | int | str
Days = list[Day] | Day


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("64 hexadecimal digits in lower case, as sha256sum prints them")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"a regular expression; this one fails: {error}") from error
    return text


Sha256 = Annotated[str, AfterValidator(_sha256)]
Regex = Annotated[str, AfterValidator(_pattern)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableSpec(_Strict):
    """A table: its file and how to read it."""

    file: str
    read_options: dict[str, Any] = Field(default_factory=dict)
    sha256: Sha256 | None = None


class Roles(_Strict):
    """Which column means what; the arguments of :class:`causalsat.Study` of the same names."""

    outcome: str
    treatment: str
    covariates: list[str] = Field(default_factory=list)
    cluster: str | None = None
    strata: str | None = None
    weights: str | None = None
    propensity: str | float | None = None
    take_up: str | None = None
    missing_outcome: Literal["weight"] | None = None
    baseline_outcome: str | None = None
    outcome_predicted: StrictBool | None = None
    outcome_labelled: str | None = None
    location_error: float | str | None = None
    urban: str | None = None
    unit: str | None = None
    treated: Scalar = None
    control: Scalar = None
    lon: str | None = None
    lat: str | None = None
    crs: str | None = None
    outcome_label: str | None = None
    outcome_unit: str | None = None


class ImagerySpec(_Strict):
    """One source of images.

    ``path`` is a file, a folder, a glob or an address; the other keys are the arguments of
    :func:`causalsat.open_imagery` (for embeddings ``open_embeddings``) of the same names, ``options`` its further
    ones. Two ``dates`` of a STAC source are the first and the last day. ``network: true`` says that an address, or
    one that a file names, may be asked when the entry is opened; an address that holds an environment variable needs
    ``load_study(..., network=True)`` besides, since its value is sent over the net.
    """

    kind: ImageryKind = "raster"
    path: str
    bands: list[str] | list[int] | dict[str, str | int] | None = None
    dates: Days | None = None
    date_regex: Regex | None = None
    crs: str | None = None
    nodata: float | None = None
    scale: float | list[float] | Literal["file"] | dict[Day, float | list[float]] | None = None
    offset: float | list[float] | dict[Day, float | list[float]] | None = None
    mask: str | dict[str, Any] | None = None
    mosaic: StrictBool = False
    network: StrictBool = False
    options: dict[str, Any] = Field(default_factory=dict)
    sha256: Sha256 | None = None


class Download(_Strict):
    """Where the data set can be had: a DOI (all files) or addresses, and the converter to this layout.

    ``convert`` names one of the package's own converters (``causalsat.catalog.convert.CONVERTERS``).
    """

    doi: str | None = None
    urls: dict[str, str] = Field(default_factory=dict)
    sha256: dict[str, Sha256] = Field(default_factory=dict)
    files: list[str] | None = None
    convert: str | None = None
    roles: Roles | None = None
    size_mb: float | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Download:
        if (self.doi is None) == (not self.urls):
            raise ValueError("either doi or urls")
        missing = sorted(set(self.urls) - set(self.sha256))
        if missing:
            raise ValueError(f"a sha256 for each of urls; {', '.join(missing)} has none")
        return self


class SimulateSpec(_Strict):
    """Arguments of :func:`causalsat.simulate.satellite_trial`."""

    variant: str = "smooth"
    n_units: int | None = Field(default=None, gt=0)
    n_sites: int | None = Field(default=None, gt=0)
    size_px: int | None = Field(default=None, gt=0)
    resolution_m: float | None = Field(default=None, gt=0)
    n_dates: int | None = Field(default=None, gt=0)
    chip_px: int | None = Field(default=None, gt=0)
    tau_mean: float | None = None
    tau_sd: float | None = None
    noise_sd: tuple[float, float] | None = None
    site_sd: float | None = None
    clouds: str | None = None
    cloud_cover: float | None = None
    seed: int = 0


class Entry(_Strict):
    """One data set.

    Attributes
    ----------
    kind : {"trial", "imagery", "simulated"}
        A trial has units, roles and usually imagery; imagery stands alone; simulated is made on demand.
    folder : str
        Folder of the files, relative to the catalogue; ``${NAME}`` is an environment variable.
    units, places : TableSpec
        The trial's units, and further places without a trial.
    imagery : dict of name to ImagerySpec
        One or several sources.
    treatment_date : date or str
        When treatment began, or the column that says so.
    chip_size_m : float
        Side in metres of the square around a place that models look at.
    randomised : bool
        Whether assignment was randomised.
    """

    kind: Kind
    title: str = ""
    description: str = ""
    licence: str
    citation: str
    folder: str = "."
    units: TableSpec | None = None
    places: TableSpec | None = None
    roles: Roles | None = None
    imagery: dict[str, ImagerySpec] = Field(default_factory=dict)
    treatment_date: Day | None = None
    chip_size_m: float | None = Field(default=None, gt=0)
    randomised: StrictBool = True
    simulate: SimulateSpec | None = None
    download: Download | None = None

    @model_validator(mode="after")
    def _complete(self) -> Entry:
        needed: dict[str, tuple[str, ...]] = {
            "trial": ("units", "roles"),
            "imagery": ("imagery",),
            "simulated": ("simulate",),
        }
        missing = [key for key in needed[self.kind] if not getattr(self, key)]
        if missing:
            raise ValueError(f"{' and '.join(missing)}, because kind is {self.kind}")
        return self
