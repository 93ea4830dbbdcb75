"""What is compared: named sources of features, named models, named metrics, and the key of a piece of work."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from causalsat.core.files import whole_file, writing
from causalsat.core.fingerprint import fingerprint
from causalsat.encoders import RandomConvFeatures, SequenceEncoder
from causalsat.exceptions import ColumnError, DataWarning, ImageryError, ParameterError
from causalsat.mapping.compute import image_encoders
from causalsat.study.dates import column_days
from causalsat.study.study import given_roles
from causalsat.version import __version__

__all__ = [
    "Covariates",
    "check_dates",
    "fold_key",
    "named",
    "read_fold",
    "resolve_source",
    "study_digest",
    "write_fold",
]

FloatArray = NDArray[np.float64]


class Covariates(TransformerMixin, BaseEstimator):
    """Columns of a table of units, as they come: the tabular source of a comparison.

    Parameters
    ----------
    columns : sequence of str
        Names of numeric columns.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> Covariates:
        """Check that the columns are there."""
        missing = [name for name in self.columns if name not in X.columns]
        if missing or not len(self.columns):
            raise ColumnError(f"columns {missing or list(self.columns)}", expected="columns of X, at least one")
        self.n_columns_ = len(self.columns)
        return self

    def transform(self, X: Any) -> Any:
        """The columns, DataFrame of shape (n, columns)."""
        import pandas as pd

        return pd.DataFrame(X[list(self.columns)])


def named(items: Any, what: str) -> dict[str, Any]:
    """Mapping of names to items; a sequence is named by the items' own names or classes, numbered where equal."""
    if isinstance(items, Mapping):
        result = {str(name): item for name, item in items.items()}
    else:
        if isinstance(items, str) or not isinstance(items, Sequence):
            items = [items]
        result = {}
        for item in items:
            name = item if isinstance(item, str) else str(getattr(item, "name", "") or type(item).__name__)
            number, stem = 2, name
            while name in result:
                name, number = f"{stem} {number}", number + 1
            result[name] = item
    if not result:
        raise ParameterError(f"no {what}", expected="at least one")
    return result


def resolve_source(study: Any, source: Any, random_state: int) -> Any:
    """Transformer of the study's X for a source: a word, an imagery, or a transformer as it is.

    Imagery is encoded as :func:`causalsat.image_model` does, a sequence by :class:`causalsat.SequenceEncoder`.
    """
    from causalsat.analysis.main import image_model

    keywords = {"covariates", "imagery", "both"}
    if isinstance(source, str) and source not in keywords:
        raise ParameterError(
            f"source {source!r}", expected=f"one of {', '.join(sorted(keywords))}, imagery or transformer"
        )
    if isinstance(source, str) and source == "covariates":
        return Covariates(tuple(study.covariates))
    covariates = "adjust" if isinstance(source, str) and source == "both" else "ignore"
    if not isinstance(source, str) and hasattr(source, "transform") and hasattr(source, "fit"):
        return source
    if not isinstance(source, str):
        if not hasattr(source, "iter_chips") and not isinstance(source, Mapping):
            raise ParameterError(
                f"a source of type {type(source).__name__}",
                expected="'covariates', 'imagery', 'both', imagery, or a transformer of the study's X",
            )
        study = study.replace(imagery=source)
    encoder = RandomConvFeatures(statistics=True, random_state=random_state)
    images = study.imagery.values() if isinstance(study.imagery, Mapping) else [study.imagery]
    if study.imagery is not None and all(len(image.dates) > 1 and image.has_time for image in images):
        encoder = SequenceEncoder(encoder, random_state=random_state)
    return image_model(study, encoder=encoder, covariates=covariates).named_steps["images"]


def check_dates(study: Any, name: str, transformer: Any) -> None:
    """Refuse imagery (embeddings included) from the treatment or later, where the study says when that was.

    Raises
    ------
    ImageryError
        If an image is not from before the treatment.

    Warns
    -----
    DataWarning
        If the imagery is undated.
    """
    start = study.treatment_date
    if "treatment_date" in study.roles:
        start = np.nanmin(column_days(study.units[study.roles["treatment_date"]]))
    if start is None or np.isnat(np.datetime64(start)):
        return
    for encoder in image_encoders(transformer):
        for image in encoder.imagery.values() if isinstance(encoder.imagery, Mapping) else [encoder.imagery]:
            taken = image.dates if len(image.dates) else study.image_dates
            late = [str(day) for day in taken if np.datetime64(day, "D") >= np.datetime64(start, "D")]
            if late:
                raise ImageryError(
                    f"source {name!r} has images of {', '.join(late[:3])}; treatment began on {start}",
                    expected="images from before the treatment",
                    todo=f"imagery.images_before('{start}')",
                )
            if not len(taken):
                warnings.warn(
                    f"source {name!r}: the imagery is undated and may show the treatment's effects",
                    DataWarning,
                    stacklevel=4,
                )


# ---------------------------------------------------------------------- keys and files
def study_digest(study: Any) -> str:
    """Digest of what a study's results depend on besides the imagery that sources name themselves."""
    X = study.X
    table = {str(c): X[c].to_numpy() for c in X.columns if c != "geometry"}
    places = [bytes(g.wkb) for g in X.geometry] if hasattr(X, "geometry") else []
    roles = {name: np.asarray(values) for name, values in given_roles(study).items()}
    return fingerprint([table, places, str(study.crs), np.asarray(study.y), roles])


def fold_key(study: str, source: Any, model: Any, train: Any, test: Any) -> str:
    """Name of a fitted fold: equal for equal study, source, model and units, in every process.

    Raises
    ------
    ParameterError
        If a part of the source or the model cannot be told apart from another of its kind.
    """
    return fingerprint([study, source, model, np.asarray(train), np.asarray(test), __version__])[:32]


def read_fold(folder: Path | None, key: str, n: int) -> FloatArray | None:
    """Effects and their sds (2, n) of a finished fold, or None where it is absent or damaged."""
    if folder is None:
        return None
    try:
        with open(folder / f"{key}.npy", "rb") as file:
            values = np.load(file, allow_pickle=False)
            mark = file.read(65)
    except (OSError, ValueError, EOFError):
        return None
    if values.shape != (2, n) or values.dtype != np.float64 or mark != _mark(key, values):
        return None
    return np.asarray(values)


def _mark(key: str, values: FloatArray) -> bytes:
    """Digest of a fold's key and values, which stands behind them in the file."""
    return hashlib.sha256(key.encode() + np.ascontiguousarray(values).tobytes()).hexdigest().encode()


def write_fold(folder: Path | None, key: str, values: FloatArray) -> None:
    """Write a fold and its digest atomically: a killed run leaves no partial file."""
    if folder is None:
        return
    path = folder / f"{key}.npy"
    with writing(path), whole_file(path, lasting=True) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(values, dtype=np.float64), allow_pickle=False)
        file.write(_mark(key, np.ascontiguousarray(values, dtype=np.float64)))
