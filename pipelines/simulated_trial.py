"""The embedded default: a simulated trial with a known effect, from study to map. Run by ``make demo``."""

from pathlib import Path

import typer

import causalsat


def main(out: Path = Path("outputs/simulated_trial"), variant: str = "smooth", seed: int = 0) -> None:
    study = causalsat.load_study("simulated_trial", variant=variant, seed=seed)
    analysis = causalsat.analyse(study, random_state=seed)
    written = analysis.write(out)
    typer.echo(f"{analysis}\n\nOutputs:")
    for path in written:
        typer.echo(f"  {path}")


if __name__ == "__main__":
    typer.run(main)
