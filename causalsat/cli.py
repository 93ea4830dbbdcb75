"""The command line: ``causalsat run | check | catalog | map``.

Exit codes: 0 done; 1 the check of a study found errors; 2 wrong usage or input that cannot be used;
130 interrupted (a map continues where it stopped when run again).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="causalsat",
    help="From a trial and satellite imagery to a validated, honestly uncertain map of treatment effects.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# ---------------------------------------------------------------------- options shared by commands
StudyArgument = Annotated[
    str, typer.Argument(help="Name of a catalogue entry, or a units file (.csv, .parquet, .dta, .gpkg).")
]
CatalogOption = Annotated[Path | None, typer.Option("--catalog", help="Catalogue file instead of the default one.")]
OutcomeOption = Annotated[str | None, typer.Option(help="Outcome column (for a units file).")]
TreatmentOption = Annotated[str | None, typer.Option(help="Treatment column (for a units file).")]
CovariatesOption = Annotated[str, typer.Option(help="Comma-separated covariate columns, such as age,female or x*.")]
ClusterOption = Annotated[str | None, typer.Option(help="Column of the unit of assignment, such as village.")]
LonOption = Annotated[str | None, typer.Option(help="Longitude column.")]
LatOption = Annotated[str | None, typer.Option(help="Latitude column.")]
ImageryOption = Annotated[str | None, typer.Option(help="Raster file, folder of dated scenes, Zarr or STAC.")]
SizeOption = Annotated[float | None, typer.Option("--size-m", help="Side of the image chip of a unit, in metres.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


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
) -> Any:
    from causalsat.exceptions import ParameterError

    if Path(source).suffix:
        from causalsat.imagery import open_imagery
        from causalsat.study import Study

        if outcome is None or treatment is None:
            raise ParameterError(
                f"the units file {source} without roles",
                expected="--outcome and --treatment",
                todo=f"causalsat check {source} --outcome COLUMN --treatment COLUMN --lon COLUMN --lat COLUMN",
            )
        return Study.from_file(
            source,
            outcome=outcome,
            treatment=treatment,
            covariates=[name.strip() for name in covariates.split(",") if name.strip()] or None,
            cluster=cluster,
            lon=lon,
            lat=lat,
            imagery=open_imagery(imagery) if imagery else None,
        )
    from causalsat.catalog import load_study

    return load_study(source, catalog=catalog)


@app.command()
def check(
    study: StudyArgument,
    catalog: CatalogOption = None,
    outcome: OutcomeOption = None,
    treatment: TreatmentOption = None,
    covariates: CovariatesOption = "",
    cluster: ClusterOption = None,
    lon: LonOption = None,
    lat: LatOption = None,
    imagery: ImageryOption = None,
    size_m: SizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for everything that could spoil the analysis of a study; exit code 1 if there are errors."""
    report = _study(study, catalog, outcome, treatment, covariates, cluster, lon, lat, imagery).check(size_m=size_m)
    if as_json:
        typer.echo(report.to_dataframe().to_json(orient="records"))
    else:
        typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def run(
    study: StudyArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the outputs; outputs/<name> by default.")] = None,
    catalog: CatalogOption = None,
    outcome: OutcomeOption = None,
    treatment: TreatmentOption = None,
    covariates: CovariatesOption = "",
    cluster: ClusterOption = None,
    lon: LonOption = None,
    lat: LatOption = None,
    imagery: ImageryOption = None,
    size_m: SizeOption = None,
    resolution: Annotated[float | None, typer.Option(help="Side of a map cell in metres.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, encoder and draws.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """The main job: effects, tests of heterogeneity, report and map of a study."""
    from causalsat.analysis import analyse, image_model

    loaded = _study(study, catalog, outcome, treatment, covariates, cluster, lon, lat, imagery)
    model = image_model(loaded, size_m=size_m, random_state=seed)
    analysis = analyse(loaded, model, random_state=seed, progress=not quiet)
    folder = out or Path("outputs") / loaded.name
    written = analysis.write(folder, resolution=resolution, progress=not quiet)
    if as_json:
        typer.echo(json.dumps({path.name: str(path) for path in written}))
    else:
        typer.echo(str(analysis))
        typer.echo("\nOutputs:")
        for path in written:
            typer.echo(f"  {path}")


@app.command("map")
def map_(
    model: Annotated[Path, typer.Argument(help="A fitted model saved with causalsat.save.")],
    imagery: Annotated[str, typer.Option(help="Raster file or folder of dated scenes.")],
    out: Annotated[Path, typer.Option(help="GeoTIFF to write.")] = Path("effects.tif"),
    region: Annotated[
        Path | None, typer.Option(help="Vector file of the region; all of the imagery by default.")
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="Side of a cell in metres.")] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Discard the tiles of an interrupted job with other inputs.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Map the effects of a saved model; run again after an interruption to continue."""
    from causalsat.imagery import open_imagery
    from causalsat.mapping import map_effects
    from causalsat.persistence import load

    result = map_effects(
        load(model),
        open_imagery(imagery),
        region,
        resolution,
        out,
        overwrite=overwrite,
        progress=not quiet,
    )
    paths = {name: str(path) for name in ("path", "png", "html") if (path := getattr(result, name)) is not None}
    typer.echo(json.dumps(paths) if as_json else "\n".join(paths.values()))


@app.command("catalog")
def catalog_(
    name: Annotated[str | None, typer.Argument(help="Entry to show; all are listed without it.")] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the data sets of the catalogue, or show one."""
    from causalsat.catalog import load_catalog

    loaded = load_catalog(catalog)
    if name is not None:
        entry = loaded[name]
        typer.echo(entry.model_dump_json(indent=1, exclude_none=True))
    elif as_json:
        typer.echo(loaded.list().to_json(orient="records"))
    else:
        typer.echo(loaded.list().to_string(index=False))


def _version(value: bool) -> None:
    if value:
        from causalsat import __version__

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
    """Run the command line; errors of the package become one message and exit code 2."""
    from causalsat.exceptions import CausalsatError

    try:
        app(args=arguments)
    except CausalsatError as error:
        typer.secho(f"causalsat: {error}", err=True, fg="red")
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("causalsat: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
