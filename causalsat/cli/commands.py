"""The command line: ``causalsat new | run | check | catalog | map | power``.

Exit codes: 0 done; 1 done, and the check of a study found errors; 2 wrong usage, or input that cannot be used; 70 a
defect of the program; 74 done, and standard output cannot be written (a full disk, a pipe that nobody reads); 130
interrupted (a map continues where it stopped when run again). With ``--json`` every command prints one line with the
same keys, see :mod:`causalsat.cli.reply`; log and warnings go to standard error.
"""

from __future__ import annotations

import atexit
import json
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

import causalsat
from causalsat.cli.reply import FINDINGS, INTERRUPTED, UNUSABLE, UNWRITTEN, answer
from causalsat.cli.streams import Stream, guarded_streams, ignore_interrupts, interrupts_arrive
from causalsat.core.files import whole_file, writing
from causalsat.core.ownership import refuse_strangers
from causalsat.exceptions import CatalogError, CausalsatError, ParameterError
from causalsat.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="causalsat",
    help="From a trial and satellite imagery to a validated, honestly uncertain map of treatment effects.",
    epilog="Exit codes: 0 done; 1 the check of a study found errors; 2 wrong usage or input that cannot be used; 70 "
    "a defect of the program; 74 output that cannot be written; 130 interrupted. "
    "Completion of commands, options and data sets: --install-completion.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _data_sets(incomplete: str) -> list[str]:
    """Names of the catalogue that begin so, for the completion of the shell."""
    try:
        return [name for name in causalsat.load_catalog() if name.startswith(incomplete)]
    except CatalogError:
        return []


# ---------------------------------------------------------------------- options shared by commands
StudyArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a catalogue entry, or a units file (.csv, .parquet, .dta, .gpkg).", autocompletion=_data_sets
    ),
]
CatalogOption = Annotated[Path | None, typer.Option("--catalog", help="Catalogue file instead of the default one.")]
OutcomeOption = Annotated[str | None, typer.Option(help="Outcome column; needed for a units file.")]
TreatmentOption = Annotated[str | None, typer.Option(help="Treatment column; needed for a units file.")]
CovariatesOption = Annotated[str, typer.Option(help="Comma-separated covariate columns, such as age,female or x*.")]
ClusterOption = Annotated[str | None, typer.Option(help="Column of the unit of assignment, such as village.")]
StrataOption = Annotated[str | None, typer.Option(help="Column of the strata within which clusters were assigned.")]
WeightsOption = Annotated[str | None, typer.Option(help="Column of survey weights.")]
PropensityOption = Annotated[
    str | None, typer.Option(help="The design's probability of treatment: a column, or one number such as 0.5.")
]
MissingOutcomeOption = Annotated[
    str | None,
    typer.Option(
        "--missing-outcome", help="'weight': weight respondents by the inverse of their probability of response."
    ),
]
BaselineOutcomeOption = Annotated[
    str | None, typer.Option("--baseline-outcome", help="Column of the outcome before treatment, adjusted for.")
]
PredictedOption = Annotated[
    bool, typer.Option("--outcome-predicted", help="A model predicted the outcome; nobody measured it.")
]
LabelledOption = Annotated[
    str | None,
    typer.Option(
        "--outcome-labelled",
        help="Column of the outcome as measured for a random subset of units, empty elsewhere.",
    ),
]
LocationErrorOption = Annotated[
    str | None,
    typer.Option(
        "--location-error", help="Up to how many metres coordinates were displaced: a number, a column, or 'dhs'."
    ),
]
UrbanOption = Annotated[
    str | None, typer.Option("--urban", help="With --location-error dhs: column that says which places are urban.")
]
TreatedOption = Annotated[str | None, typer.Option(help="Value of the treatment column that means treated.")]
ControlOption = Annotated[
    str | None, typer.Option(help="Value of the treatment column that means control; of several arms, all are taken.")
]
TakeUpOption = Annotated[
    str | None, typer.Option("--take-up", help="Column of who took the treatment up; the treatment is assignment.")
]
ObservationalOption = Annotated[
    bool, typer.Option("--observational", help="Nobody randomised: adjust, and show overlap and sensitivity.")
]
TreatmentDateOption = Annotated[
    str | None, typer.Option(help="When treatment began: a date such as 2011-05-01, or a column.")
]
LonOption = Annotated[str | None, typer.Option(help="Longitude column.")]
LatOption = Annotated[str | None, typer.Option(help="Latitude column.")]
ImageryOption = Annotated[
    str | None, typer.Option(help="Raster file, folder of dated scenes, Zarr, STAC, or a catalogue entry.")
]
NetworkOption = Annotated[
    bool, typer.Option("--network", help="Whether addresses on the net may be read; nothing is fetched without it.")
]
SizeOption = Annotated[float | None, typer.Option("--size-m", help="Side of the image chip of a unit, in metres.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, warnings or log.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log of each step, and tracebacks, on stderr.")]


def opened_imagery(imagery: str, catalog: Path | None, network: bool = False) -> Any:
    """The imagery of a path, or of a catalogue entry with its bands, scale, nodata and mask."""
    from causalsat.catalog import load_imagery

    if imagery.isidentifier() and not Path(imagery).exists():
        known = causalsat.load_catalog(catalog)
        if imagery in known or catalog is not None:
            return load_imagery(imagery, known, network=network)
    return causalsat.open_imagery(imagery, network=network)


def _study(
    source: str,
    catalog: Path | None,
    outcome: str | None,
    treatment: str | None,
    covariates: str,
    cluster: str | None,
    lon: str | None,
    lat: str | None,
    imagery: str | None,
    network: bool,
    design: dict[str, Any],
) -> Any:
    """The study of a units file with the given roles, or of a catalogue entry with them in the place of its own."""
    names = [name.strip() for name in covariates.split(",") if name.strip()] or None
    if Path(source).suffix:
        if catalog is not None and not (imagery or "").isidentifier():
            raise ParameterError(
                f"--catalog with the units file {source}",
                expected="--catalog with the name of one of its entries, of a study or of --imagery",
                todo="leave --catalog out",
            )
        if outcome is None or treatment is None:
            raise ParameterError(
                f"the units file {source} without roles",
                expected="--outcome and --treatment",
                todo=f"causalsat check {source} --outcome COLUMN --treatment COLUMN --lon COLUMN --lat COLUMN",
            )
        return causalsat.Study.from_file(
            source,
            outcome=outcome,
            treatment=treatment,
            covariates=names,
            cluster=cluster,
            lon=lon,
            lat=lat,
            imagery=opened_imagery(imagery, catalog, network) if imagery else None,
            **design,
        )
    given: dict[str, Any] = {"outcome": outcome, "treatment": treatment, "cluster": cluster, "lon": lon, "lat": lat}
    given |= {
        "covariates": names,
        **design,
        "imagery": opened_imagery(imagery, catalog, network) if imagery else None,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    return causalsat.load_study(source, catalog=catalog, network=network, **chosen)


def _design(
    strata: str | None,
    weights: str | None,
    propensity: str | None,
    treated: str | None,
    control: str | None,
    observational: bool,
    treatment_date: str | None,
    take_up: str | None = None,
) -> dict[str, Any]:
    """What the options say of the design, as arguments of Study: only those that were given."""
    number = _number(propensity)
    given: dict[str, Any] = {
        "strata": strata,
        "weights": weights,
        "propensity": propensity if number is None else number,
        "treated": _value(treated),
        "control": _value(control),
        "take_up": take_up,
        "treatment_date": treatment_date,
        "randomised": False if observational else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _outcome(
    missing_outcome: str | None, baseline_outcome: str | None, predicted: bool, labelled: str | None
) -> dict[str, Any]:
    """What the options say of the outcome, as arguments of Study: only those that were given."""
    given: dict[str, Any] = {
        "missing_outcome": missing_outcome,
        "baseline_outcome": baseline_outcome,
        "outcome_predicted": True if predicted or labelled is not None else None,
        "outcome_labelled": labelled,
    }
    return {key: value for key, value in given.items() if value is not None}


def _location(location_error: str | None, urban: str | None) -> dict[str, Any]:
    """What the options say of displaced coordinates, as arguments of Study: only those that were given."""
    number = _number(location_error)
    given = {"location_error": location_error if number is None else number, "urban": urban}
    return {key: value for key, value in given.items() if value is not None}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _value(text: str | None) -> Any:
    """A value of a column as it was typed: a number where it is one."""
    number = _number(text)
    if number is None:
        return text
    return int(number) if number.is_integer() else number


@app.command()
def check(
    study: StudyArgument,
    catalog: CatalogOption = None,
    outcome: OutcomeOption = None,
    treatment: TreatmentOption = None,
    covariates: CovariatesOption = "",
    cluster: ClusterOption = None,
    strata: StrataOption = None,
    weights: WeightsOption = None,
    propensity: PropensityOption = None,
    treated: TreatedOption = None,
    control: ControlOption = None,
    take_up: TakeUpOption = None,
    observational: ObservationalOption = False,
    treatment_date: TreatmentDateOption = None,
    missing_outcome: MissingOutcomeOption = None,
    baseline_outcome: BaselineOutcomeOption = None,
    outcome_predicted: PredictedOption = False,
    outcome_labelled: LabelledOption = None,
    location_error: LocationErrorOption = None,
    urban: UrbanOption = None,
    lon: LonOption = None,
    lat: LatOption = None,
    imagery: ImageryOption = None,
    network: NetworkOption = False,
    size_m: SizeOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look for everything that could spoil the analysis of a study; exit code 1 if there are errors.

    causalsat check units.csv --outcome y --treatment t --lon lon --lat lat --imagery scene.tif --size-m 960
    """
    with answer("check", as_json, verbose, quiet) as reply:
        design = _design(strata, weights, propensity, treated, control, observational, treatment_date, take_up)
        design |= _outcome(missing_outcome, baseline_outcome, outcome_predicted, outcome_labelled)
        design |= _location(location_error, urban)
        loaded = _study(study, catalog, outcome, treatment, covariates, cluster, lon, lat, imagery, network, design)
        report = loaded.check(size_m=size_m)
        findings = json.loads(report.to_dataframe().to_json(orient="records"))
        reply.result = {"study": loaded.name, "ok": bool(report.ok), "findings": findings}
        reply.text, reply.findings = str(report), not report.ok


@app.command()
def run(
    study: StudyArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the outputs; outputs/<name> by default.")] = None,
    catalog: CatalogOption = None,
    outcome: OutcomeOption = None,
    treatment: TreatmentOption = None,
    covariates: CovariatesOption = "",
    cluster: ClusterOption = None,
    strata: StrataOption = None,
    weights: WeightsOption = None,
    propensity: PropensityOption = None,
    treated: TreatedOption = None,
    control: ControlOption = None,
    take_up: TakeUpOption = None,
    observational: ObservationalOption = False,
    treatment_date: TreatmentDateOption = None,
    missing_outcome: MissingOutcomeOption = None,
    baseline_outcome: BaselineOutcomeOption = None,
    outcome_predicted: PredictedOption = False,
    outcome_labelled: LabelledOption = None,
    location_error: LocationErrorOption = None,
    urban: UrbanOption = None,
    lon: LonOption = None,
    lat: LatOption = None,
    imagery: ImageryOption = None,
    network: NetworkOption = False,
    size_m: SizeOption = None,
    resolution: Annotated[float | None, typer.Option(help="Side of a map cell in metres.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, encoder and draws.")] = 0,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace outputs of another study, and other files, in the folder."),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """The main job: effects, tests of heterogeneity, report and map of a study.

    causalsat run simulated_trial --out outputs/first
    """
    with answer("run", as_json, verbose, quiet) as reply:
        from causalsat.analysis.folder import check_folder

        design = _design(strata, weights, propensity, treated, control, observational, treatment_date, take_up)
        design |= _outcome(missing_outcome, baseline_outcome, outcome_predicted, outcome_labelled)
        design |= _location(location_error, urban)
        loaded = _study(study, catalog, outcome, treatment, covariates, cluster, lon, lat, imagery, network, design)
        folder = out or Path("outputs") / loaded.name
        check_folder(folder, loaded, overwrite=overwrite)  # before the analysis, which may take hours
        model = causalsat.image_model(loaded, size_m=size_m, random_state=seed)
        analysis = causalsat.analyse(loaded, model, random_state=seed, progress=not quiet)
        written = analysis.write(folder, resolution=resolution, progress=not quiet, overwrite=overwrite)
        files = {path.name: str(path) for path in written}
        reply.result = {"study": loaded.name, "folder": str(folder), "files": files}
        reply.text = "\n".join([str(analysis), "", "Outputs:", *(f"  {path}" for path in written)])


@app.command("target")
def target_(
    study: StudyArgument,
    budget: Annotated[float, typer.Option(help="What all treatments of the plan may cost together.")],
    cost: Annotated[str, typer.Option(help="Cost of treating a place: a number, or a column of the units.")] = "1",
    people: Annotated[str | None, typer.Option(help="People of a place: a number, or a column of the units.")] = None,
    cost_per: Annotated[str, typer.Option(help="What the cost is for: a place, or each person of it.")] = "place",
    rule: Annotated[str, typer.Option(help="How places are chosen: ranking or tree.")] = "ranking",
    worth: Annotated[
        float | None, typer.Option(help="Worth of one unit of the outcome, in units of the cost.")
    ] = None,
    district: Annotated[str | None, typer.Option(help="Column of the districts of which each gets a share.")] = None,
    share: Annotated[float, typer.Option(help="Least share of each district's places that is treated.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the plan; outputs/<name>-plan by default.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Side of the cells of the rule's map in metres.")] = None,
    with_map: Annotated[bool, typer.Option("--map/--no-map", help="Draw the map of the rule.")] = True,
    catalog: CatalogOption = None,
    outcome: OutcomeOption = None,
    treatment: TreatmentOption = None,
    covariates: CovariatesOption = "",
    cluster: ClusterOption = None,
    strata: StrataOption = None,
    weights: WeightsOption = None,
    propensity: PropensityOption = None,
    treated: TreatedOption = None,
    control: ControlOption = None,
    observational: ObservationalOption = False,
    treatment_date: TreatmentDateOption = None,
    lon: LonOption = None,
    lat: LatOption = None,
    imagery: ImageryOption = None,
    network: NetworkOption = False,
    size_m: SizeOption = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, encoder and draws.")] = 0,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Whom to treat with a budget: a table, its value by the trial, a page with a slider, a map.

    causalsat target simulated_trial --budget 100 --cost 1 --out outputs/plan
    """
    with answer("target", as_json, verbose, quiet) as reply:
        from causalsat.decisions.target import check_plan

        check_plan(budget, rule, worth, cost_per)  # before the analysis
        design = _design(strata, weights, propensity, treated, control, observational, treatment_date)
        loaded = _study(study, catalog, outcome, treatment, covariates, cluster, lon, lat, imagery, network, design)
        model = causalsat.image_model(loaded, size_m=size_m, random_state=seed)
        analysis = causalsat.analyse(loaded, model, random_state=seed, progress=not quiet)
        price, heads = _number(cost), _number(people)
        plan = causalsat.target(
            analysis,
            budget=budget,
            cost=cost if price is None else price,
            people=people if heads is None else heads,
            cost_per=cost_per,
            rule=rule,
            worth=worth,
            constraints=None if district is None else {"column": district, "share": share},
            random_state=seed,
        )
        folder = out or Path("outputs") / f"{loaded.name}-plan"
        written = plan.write(folder, resolution=resolution, with_map=with_map, progress=not quiet)
        files = {path.name: str(path) for path in written}
        value = {"estimate": plan.value.estimate, "se": plan.value.se, "treated": plan.n_treated, "spent": plan.spent}
        reply.result = {"study": loaded.name, "folder": str(folder), "value": value, "files": files}
        reply.text = "\n".join([plan.paragraph(), "", "Outputs:", *(f"  {path}" for path in written)])


@app.command("map")
def map_(
    model: Annotated[Path, typer.Argument(help="A fitted model saved with causalsat.save.")],
    imagery: Annotated[
        str,
        typer.Option(
            help="Raster file or folder of dated scenes, or a catalogue entry, which can have scale and mask."
        ),
    ],
    out: Annotated[Path, typer.Option(help="GeoTIFF to write.")] = Path("effects.tif"),
    region: Annotated[
        Path | None, typer.Option(help="Vector file of the region; all of the imagery by default.")
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="Side of a cell in metres.")] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Discard the tiles of an interrupted job with other inputs.")
    ] = False,
    districts: Annotated[
        Path | None, typer.Option(help="Vector file of districts: their mean effects, as a table and on the page.")
    ] = None,
    district_name: Annotated[str | None, typer.Option(help="Column with the districts' names.")] = None,
    catalog: CatalogOption = None,
    network: NetworkOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Map the effects, or the risk, of a saved model; run again after an interruption to continue.

    causalsat map model.safetensors --imagery scene.tif --resolution 480 --out effects.tif
    """
    with answer("map", as_json, verbose, quiet) as reply:
        from causalsat.base import final_estimator

        shapes = _polygons(districts, district_name)  # before the map, which may take hours
        if shapes is not None and not overwrite:
            refuse_strangers([out.with_suffix(".districts.csv")], "choose another --out, or pass --overwrite")
        fitted, source = causalsat.load(model), opened_imagery(imagery, catalog, network)
        mapper = causalsat.map_effects if hasattr(final_estimator(fitted)[1], "effect") else causalsat.map_risk
        result = mapper(fitted, source, region, resolution, out, overwrite=overwrite, progress=not quiet)
        files = {name: str(path) for name in ("path", "png", "html") if (path := getattr(result, name)) is not None}
        if shapes is not None:
            files |= _districts(result, fitted, source, shapes, district_name, resolution, quiet)
        reply.result = {
            "files": files, "bands": list(result.bands), "cells": result.n_mapped,
            "resolution_m": result.resolution_m, "note": result.note,
        }  # fmt: skip
        reply.text = "\n".join(files.values())


def _polygons(districts: Path | None, name: str | None) -> Any:
    """The districts of a vector file, which have the column of names; None without a file."""
    from causalsat.mapping.grid import read_polygons
    from causalsat.study.building import require_column

    if districts is None:
        if name is not None:
            raise ParameterError("--district-name without --districts", expected="both")
        return None
    shapes = read_polygons(districts)
    if name is not None:
        require_column(shapes, name, "--district-name", "districts")
    return shapes


def _districts(
    result: Any, model: Any, imagery: Any, districts: Any, name: str | None, resolution: float | None, quiet: bool
) -> dict[str, str]:
    """Mean effects of districts beside a map, and on its page."""
    means = causalsat.district_effects(model, imagery, districts, resolution, name=name, progress=not quiet)
    files = {"districts": str(means.write(result.path.with_suffix(".districts.csv")))}
    if result.html is not None:
        files["html"] = str(result.to_html(result.html, imagery, districts=means))
    return files


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the study: letters, digits and underscores.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="Survey file (.csv, .parquet, .dta, .gpkg): one row a unit.")
    ] = None,
    outcome: OutcomeOption = None,
    treatment: TreatmentOption = None,
    covariates: CovariatesOption = "",
    cluster: ClusterOption = None,
    strata: StrataOption = None,
    weights: WeightsOption = None,
    propensity: PropensityOption = None,
    treated: TreatedOption = None,
    control: ControlOption = None,
    take_up: TakeUpOption = None,
    observational: ObservationalOption = False,
    treatment_date: TreatmentDateOption = None,
    missing_outcome: MissingOutcomeOption = None,
    baseline_outcome: BaselineOutcomeOption = None,
    outcome_predicted: PredictedOption = False,
    outcome_labelled: LabelledOption = None,
    location_error: LocationErrorOption = None,
    urban: UrbanOption = None,
    outcome_label: Annotated[str | None, typer.Option(help="What tables and axes call the outcome.")] = None,
    outcome_unit: Annotated[str | None, typer.Option(help="Unit of the outcome, such as USD.")] = None,
    lon: LonOption = None,
    lat: LatOption = None,
    imagery: ImageryOption = None,
    size_m: SizeOption = None,
    catalog: Annotated[
        Path, typer.Option("--catalog", help="Catalogue file that gets the entry; made if it is not there.")
    ] = Path("data_catalog.yaml"),
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="Ask for what no option says.")] = True,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a catalogue entry and a pipeline for a survey file; asks for what no option says.

    causalsat new my_study --file survey.dta --imagery landsat.tif
    """
    with answer("new", as_json, verbose, quiet) as reply:
        from causalsat.cli.new import ask_roles, check_name, entry_of, write_study

        check_name(name)
        question = _ask if ask and not as_json and sys.stdin.isatty() else None
        survey = file if file is not None else Path(_needed("Survey file", "--file", question))
        given = _design(strata, weights, propensity, treated, control, observational, None, take_up)
        given |= _outcome(missing_outcome, baseline_outcome, outcome_predicted, outcome_labelled)
        given |= _location(location_error, urban)
        randomised = given.pop("randomised", None)
        named: dict[str, Any] = {
            "outcome": outcome,
            "treatment": treatment,
            "cluster": cluster,
            "lon": lon,
            "lat": lat,
        }
        named |= {"covariates": [c.strip() for c in covariates.split(",") if c.strip()]}
        named |= {"outcome_label": outcome_label, "outcome_unit": outcome_unit}
        roles = ask_roles(survey, {**named, **given}, question)
        if imagery is None and question is not None:
            imagery = question("Imagery: raster file or folder of dated scenes (empty for none)", "").strip() or None
        if size_m is None and imagery is not None and question is not None:
            size_m = _number(question("Side of the square around a place that models look at, in metres", "1000"))
        settings = {"treatment_date": treatment_date, "chip_size_m": size_m, "randomised": randomised}
        content = entry_of(survey, roles, catalog, imagery=imagery, settings=settings)
        written = write_study(name, content, catalog, Path("pipelines") / f"{name}.py")
        reply.result = {"study": name, "files": [str(path) for path in written], "entry": content}
        reply.text = "\n".join(
            [
                *(f"Wrote {path}" for path in written),
                f"Next: causalsat check {name}, then causalsat run {name}",
                *([] if imagery else ["It has no imagery yet: add imagery: to its entry before causalsat run"]),
            ]
        )


def _ask(question: str, proposal: str) -> str:
    return str(typer.prompt(question, default=proposal, show_default=bool(proposal), err=True))


def _needed(question: str, option: str, ask: Any) -> str:
    """An answer, or an error that names the option where nobody can be asked."""
    if ask is None:
        raise ParameterError(f"no {option}", expected=f"{option} FILE", todo="give it, or run this in a terminal")
    return str(ask(question, "")).strip()


@app.command()
def power(
    villages: Annotated[Path, typer.Argument(help="File of candidate villages (.csv, .gpkg, ...), one row each.")],
    imagery: ImageryOption = None,
    n_villages: Annotated[str, typer.Option("--villages", help="Villages in the trial, such as 50,100,200.")] = "100",
    people: Annotated[str, typer.Option(help="People in a village, such as 10,20.")] = "20",
    effect: Annotated[float, typer.Option(help="Average effect, in standard deviations of the outcome.")] = 0.2,
    icc: Annotated[float, typer.Option(help="Share of the outcome's variance between villages.")] = 0.1,
    share_explained: Annotated[float, typer.Option(help="Share of the effects' variance that images show.")] = 0.5,
    heterogeneity: Annotated[
        float | None, typer.Option(help="Standard deviation of effects between villages; half of the effect.")
    ] = None,
    simulations: Annotated[int, typer.Option(help="Simulated trials for each row of the table.")] = 200,
    lon: LonOption = None,
    lat: LatOption = None,
    catalog: CatalogOption = None,
    network: NetworkOption = False,
    size_m: SizeOption = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write, with a picture beside it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of encoder and simulations.")] = 0,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Power of a trial in candidate villages: of the average effect, of heterogeneity, of AUTOC.

    causalsat power villages.gpkg --imagery scene.tif --villages 50,100 --people 10,20 --out power.csv
    """
    with answer("power", as_json, verbose, quiet) as reply:
        from causalsat.study.building import to_geoframe
        from causalsat.study.reading import read_units

        if out is not None:
            refuse_strangers([out.with_suffix(".png")], "choose another name for --out, or move the picture")
        table, images = read_units(villages)[0], None
        sizes, persons = _whole_numbers(n_villages, "--villages"), _whole_numbers(people, "--people")
        if imagery:
            images = opened_imagery(imagery, catalog, network)
            table = to_geoframe(table, lon, lat, None, "villages")
        else:  # the numbers of the file are the features
            table = table.drop(columns=[name for name in (lon, lat) if name in table.columns])
        assumed: dict[str, Any] = {
            "effect": effect,
            "icc": icc,
            "share_explained": share_explained,
            "heterogeneity": heterogeneity,
        }
        options: dict[str, Any] = {
            "n_simulations": simulations,
            "size_m": size_m,
            "seed": seed,
            "progress": not quiet,
        }
        result = causalsat.power(table, images, n_villages=sizes, people=persons, **assumed, **options)
        files = {} if out is None else _write_power(result, out)
        reply.result = {"power": json.loads(result.table.to_json(orient="records")), "files": files}
        reply.text = "\n".join([str(result), *files.values()])


def _whole_numbers(text: str, option: str) -> list[int]:
    """Numbers between commas."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ParameterError(f"{option} {text}", expected="whole numbers between commas, such as 50,100") from None


def _write_power(result: Any, out: Path) -> dict[str, str]:
    """The table as CSV and its picture."""
    import matplotlib.pyplot as plt

    from causalsat.core.tables import write_csv

    write_csv(result.table, out, index=False)
    figure = result.plot().figure
    with writing(out), whole_file(out.with_suffix(".png")) as temporary:
        figure.savefig(temporary, dpi=150, format="png", metadata={"Software": f"causalsat {__version__}"})
    plt.close(figure)
    return {"table": str(out), "picture": str(out.with_suffix(".png"))}


@app.command("catalog")
def catalog_(
    name: Annotated[
        str | None, typer.Argument(help="Entry to show; all are listed without it.", autocompletion=_data_sets)
    ] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the data sets of the catalogue, or show one.

    causalsat catalog uganda_yop
    """
    with answer("catalog", as_json, verbose, quiet) as reply:
        loaded = causalsat.load_catalog(catalog)
        if name is not None:
            text = loaded[name].model_dump_json(indent=1, exclude_none=True)
            reply.result, reply.text = {"name": name, "entry": json.loads(text)}, text
        else:
            listed = loaded.list()
            reply.result = {"datasets": json.loads(listed.to_json(orient="records"))}
            reply.text = _listed(listed)


def _listed(table: Any) -> str:
    """The data sets in columns, no line longer than 100 letters; titles that are longer are cut."""
    rows = [[str(row["name"]), str(row["kind"]), str(row["data"])] for _, row in table.iterrows()]
    head = ["name", "kind", "data"]
    wide = [min(30, max(len(row[j]) for row in [head, *rows])) for j in range(3)]
    left = max(20, 100 - sum(wide) - 2 * len(wide))
    lines = []
    for row, title in zip([head, *rows], ["title", *table["title"]], strict=True):
        cells = [cell if len(cell) <= w else cell[: w - 3] + "..." for cell, w in zip(row, wide, strict=True)]
        words = textwrap.shorten(" ".join(str(title).split()), left, placeholder=" ...")
        lines.append("  ".join([*(cell.ljust(w) for cell, w in zip(cells, wide, strict=True)), words]).rstrip())
    return "\n".join(lines)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """From a trial and satellite imagery to a validated, honestly uncertain map of treatment effects."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; what goes wrong becomes one message and an exit code."""
    atexit.register(ignore_interrupts)
    with interrupts_arrive(), guarded_streams() as output:
        code = _run(arguments, output)
    sys.exit(code)


def _run(arguments: list[str] | None, output: Stream) -> int:
    """Exit code of the command, which has answered."""
    code = 0
    try:
        app(args=arguments)
        output.flush()
    except CausalsatError as error:
        typer.secho(f"causalsat: {error}", err=True, fg="red")
        code = UNUSABLE
    except KeyboardInterrupt:
        typer.secho("causalsat: interrupted", err=True)
        code = INTERRUPTED
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else UNUSABLE
    except OSError:
        if output.error is None:
            raise
    if output.error is None or code not in (0, FINDINGS):
        return code
    reason = output.error.strerror or str(output.error)
    typer.secho(
        f"causalsat: standard output cannot be written ({reason}); files that the command writes are written. Run it "
        "again with its output in another place",
        err=True,
        fg="red",
    )
    return UNWRITTEN


if __name__ == "__main__":
    main()
