"""Errors and warnings that say what arrived, what was expected and what to do.

Every error that the package raises on bad input is a :class:`CausalsatError`. Each also derives from the
built-in exception that a user would guess (``ValueError``, ``TypeError``, ``FileNotFoundError`` ...), so
``except ValueError`` keeps working.
"""

from __future__ import annotations

__all__ = [
    "CatalogError",
    "CausalsatError",
    "CausalsatWarning",
    "ClusterError",
    "ColumnError",
    "ConvergenceError",
    "ConvergenceWarning",
    "DataError",
    "DataWarning",
    "IgnoredWarning",
    "ImageryError",
    "ImageryNotFoundError",
    "ImageryWarning",
    "LargeResultWarning",
    "MapWarning",
    "MissingExtraError",
    "ModelFileError",
    "OutputError",
    "OverlapWarning",
    "ParameterError",
    "ResumeError",
    "TooLargeError",
    "TreatmentError",
    "TreatmentWarning",
]


class CausalsatError(Exception):
    """Base of the package's errors; composes its message from what, expected and remedy.

    Parameters
    ----------
    what : str
        What arrived.
    expected : str, optional
        What was expected instead.
    todo : str, optional
        What the user can do about it.

    Examples
    --------
    >>> print(DataError("y has 3 missing values", expected="none", todo="drop or impute them"))
    y has 3 missing values. Expected: none. What to do: drop or impute them.
    """

    def __init__(self, what: str, *, expected: str | None = None, todo: str | None = None) -> None:
        self.what, self.expected, self.todo = what, expected, todo
        parts = [what, f"Expected: {expected}" if expected else "", f"What to do: {todo}" if todo else ""]
        super().__init__(" ".join(_sentence(part) for part in parts if part))

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process borders (dask, multiprocessing) with all parts."""
        return (_rebuild, (type(self), self.what, self.expected, self.todo))


def _sentence(text: str) -> str:
    """The text with one mark at its end."""
    text = text.rstrip()
    return text if text.endswith(("?", "!", "...")) else text.rstrip(".") + "."


def _rebuild(kind: type[CausalsatError], what: str, expected: str | None, todo: str | None) -> CausalsatError:
    return kind(what, expected=expected, todo=todo)


class DataError(CausalsatError, ValueError):
    """Values that cannot be used: missing, not finite, of wrong length, constant.

    Look at the rows or columns that the message names: drop, impute or correct them before the call.
    ``study.check()`` lists everything of this kind at once.
    """


class ParameterError(CausalsatError, ValueError):
    """A constructor or method argument outside its domain.

    Pass a value of the kind that the message says is expected; ``help`` of the function lists them.
    """


class TreatmentError(DataError):
    """The treatment is absent, has one arm only, or is of a kind that the estimator does not handle.

    Name the column of the assignment, and with ``treated=`` or ``control=`` what its values mean; take an estimator
    that models several arms or doses where there are more than two.
    """


class ColumnError(CausalsatError, KeyError):
    """A named column does not exist, or is of a type that cannot be used.

    Check the spelling against the close matches in the message, or convert the column to the type that is named.
    """

    __str__ = Exception.__str__  # KeyError would print the message's repr


class ImageryError(CausalsatError, ValueError):
    """A raster, its georeference or its relation to the units is unusable.

    Open the raster in another program, and compare its coordinate system, bands, dates and extent with the units'.
    """


class ImageryNotFoundError(ImageryError, FileNotFoundError):
    """A raster file or folder does not exist or cannot be opened.

    Check the path; for data sets of the catalogue, set the environment variable that the message names.
    """

    __str__ = Exception.__str__  # OSError would print its errno fields


class CatalogError(CausalsatError, ValueError):
    """A data catalogue entry that does not follow the schema, or a data set that is not there.

    Go to the file and line that the message names; unknown and repeated keys are refused.
    """


class ModelFileError(CausalsatError, ValueError):
    """A saved model that cannot be read, or an object that cannot be saved without pickle.

    Save the model anew with ``causalsat.save``, with the version that reads it; a damaged file is to be copied again.
    """


class ConvergenceError(CausalsatError, RuntimeError):
    """A sampler whose draws are no answer: chains that disagree, or too many divergences.

    Draw more (``n_tune``, ``n_draws``), use fewer modifiers or components, or a stronger prior.
    """


class ResumeError(CausalsatError, RuntimeError):
    """An interrupted job was resumed with other inputs than it began with.

    Continue with the inputs that the job began with, or start it anew with ``overwrite=True`` or another file.
    """


class ClusterError(CausalsatError, RuntimeError):
    """The scheduler or the workers of a cluster were lost; what is finished is kept.

    Start the cluster again and repeat the call with the same arguments: finished tiles are kept.
    """


class OutputError(CausalsatError, OSError):
    """A file that cannot be written: no space, no permission, a folder that is gone.

    Free space, change permissions, or write to another folder.
    """

    __str__ = Exception.__str__


class TooLargeError(CausalsatError, MemoryError):
    """A result that takes more memory than there is; nothing of it was made.

    Take fewer units at a time, fewer draws, or a summary such as ``effect_table`` and ``average_effect``.
    """


class MissingExtraError(ParameterError, ImportError):
    """A package of an optional extra is not installed.

    Install the extra that the message names, such as ``pip install 'causalsat[maps]'``.
    """

    __str__ = Exception.__str__


class CausalsatWarning(UserWarning):
    """Base of the package's warnings."""


class DataWarning(CausalsatWarning):
    """Data that can be used, with something that the user should know.

    Decide whether what was done is what you mean; the message says how to get something else.
    """


class TreatmentWarning(DataWarning):
    """A treatment that may mean something else than what the estimator takes it for.

    Say with ``treated=``, ``control=`` or labels what the values mean.
    """


class ImageryWarning(DataWarning):
    """Imagery that can be used, with something that the user should know.

    Look at the images that the message names; masks, scales and dates can be stated in ``open_imagery``.
    """


class MapWarning(DataWarning):
    """A map or a mean of a district that is not quite what was asked for.

    Compare the region, the resolution and the layers of the map with what you asked for.
    """


class IgnoredWarning(DataWarning):
    """Something that was asked for was left out, such as weights that a learner does not take.

    Leave the argument out, or take an estimator or a package that honours it.
    """


class LargeResultWarning(CausalsatWarning):
    """A result that takes much memory, where a smaller one would do.

    Take a part of the units, fewer draws, or the smaller result that the message names.
    """


class OverlapWarning(CausalsatWarning):
    """Propensities close to 0 or 1: effects rest on few comparable units.

    Look at ``evaluation.overlap``; drop units that have no comparable ones, or report the effect of the others.
    """


class ConvergenceWarning(CausalsatWarning):
    """A sampler or optimiser whose diagnostics are not good.

    Draw more, or look at ``summary()``: trust only quantities with an R-hat near 1.
    """
