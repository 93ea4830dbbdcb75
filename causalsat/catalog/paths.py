"""Paths in a catalogue: environment variables, relative to the file, checksums."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from causalsat.exceptions import CatalogError
from causalsat.imagery.files import gdal_path, is_remote, local_file
from causalsat.study.building import close_matches

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def is_address(text: str) -> bool:
    """Whether a path is no plain path: an address on the net, or in a GDAL virtual file system."""
    return "://" in text or text.startswith("/vsi") or is_remote(text)


def check_network(text: str, allowed: bool, asked: bool, where: str) -> None:
    """Refuse an address on the net that nobody asked for.

    Parameters
    ----------
    text : str
        The path as it is written in the catalogue.
    allowed : bool
        Whether the caller or the entry allows the network.
    asked : bool
        Whether the caller does.
    where : str
        File, line and key.
    """
    filled = _VARIABLE.sub(lambda m: os.environ.get(m[1]) or m[2] or "", text)
    if not (is_remote(text) or is_remote(gdal_path(filled))):
        return
    if not allowed:
        raise CatalogError(
            f"{where}: the path {text!r} lies on the net",
            expected="a local file: nothing is fetched unless it is asked for",
            todo="pass network=True (causalsat ... --network), or write network: true beside the path",
        )
    variables = _VARIABLE.findall(text)
    if variables and not asked:
        raise CatalogError(
            f"{where}: the address {text!r} would send the environment variable {variables[0][0]} over the net",
            expected="to be told so by the caller, not by the catalogue alone",
            todo="pass network=True if you trust this catalogue",
        )


def unset_variables(text: str) -> list[str]:
    """Names of the environment variables of a path that are not set and have no default."""
    return [name for name, default in _VARIABLE.findall(text) if not os.environ.get(name) and not default]


def expand(text: str, base: Path, where: str) -> str:
    """The path with ``${NAME}`` and ``${NAME:-default}`` filled in, absolute unless an address.

    Examples
    --------
    >>> expand("${NO_SUCH_VARIABLE:-data}/units.csv", Path("/trial"), "")
    '/trial/data/units.csv'
    """
    unset = unset_variables(text)
    if unset:
        raise CatalogError(
            f"{where}: the path {text!r} uses the environment variable {unset[0]}, which is not set",
            expected="a folder in that variable",
            todo=f"export {unset[0]}=/path/to/the/data",
        )
    filled = _VARIABLE.sub(lambda m: os.environ.get(m[1]) or m[2], text)
    if is_address(filled):
        return filled
    return str((base / Path(filled).expanduser()).resolve() if not _is_glob(filled) else base / Path(filled))


def _is_glob(text: str) -> bool:
    return any(c in text for c in "*?[")


def existing(text: str, where: str) -> str:
    """The path itself if the file, folder or at least one match of the glob exists."""
    if is_address(text):
        held = local_file(gdal_path(text))
        if not is_remote(text) and held is not None and not Path(held).exists():
            raise CatalogError(
                f"{where}: {text} does not exist", expected="the file that the catalogue names", todo="check the path"
            )
        return text
    path = Path(text)
    if _is_glob(text):
        import glob

        if glob.glob(text, recursive=True):
            return text
        raise CatalogError(
            f"{where}: no file matches {text}", expected="at least one", todo="check the folder and the pattern"
        )
    if path.exists():
        return text
    parent = path.parent
    near = close_matches(path.name, (p.name for p in parent.iterdir())) if parent.is_dir() else []
    reason = f"{path} does not exist" if parent.is_dir() else f"{path} does not exist: there is no folder {parent}"
    raise CatalogError(
        f"{where}: {reason}",
        expected="the file that the catalogue names",
        todo=f"did you mean {' or '.join(near)}?" if near else "check the path, or set the variable that it uses",
    )


def verify(path: str, sha256: str | None, where: str) -> None:
    """Compare a file's SHA-256 with the catalogue's."""
    if sha256 is None or is_address(path):
        return
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise CatalogError(
            f"{where}: {path} has the checksum {digest.hexdigest()}",
            expected=f"sha256 {sha256}",
            todo="the file changed or is not whole: get it again, or correct sha256 if the change was meant",
        )
