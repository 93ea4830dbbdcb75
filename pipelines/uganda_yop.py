"""Uganda's Youth Opportunities Program: cash grants, Landsat imagery of 2000, 327 trial sites and 991 others.

Needs the folder ``uganda_yop`` below the path in the environment variable CAUSALSAT_DATA, or ``--download``.
"""

from pathlib import Path

import typer

import causalsat


def main(
    out: Path = Path("outputs/uganda_yop"),
    download: bool = False,
    resolution: float = 500.0,
    seeds: int = 3,
    coordinates: bool = False,
) -> None:
    study = causalsat.load_study("uganda_yop", download=download)
    model = causalsat.image_model(study, coordinates=coordinates)  # with coordinates to rank, without to transport
    analysis = causalsat.analyse(study, model, fold_seeds=range(seeds))
    written = analysis.write(out, resolution=resolution)
    typer.echo(f"{analysis}\n\nOutputs:")
    for path in written:
        typer.echo(f"  {path}")


if __name__ == "__main__":
    typer.run(main)
