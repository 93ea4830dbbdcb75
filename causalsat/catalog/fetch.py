"""Downloads, only when asked for: pooch, checksums, a cache folder, and the conversion to the catalogue's layout."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from causalsat.catalog import convert
from causalsat.catalog.schema import Download
from causalsat.exceptions import CatalogError
from causalsat.study.building import close_matches, list_names

LOG = logging.getLogger(__name__)
DONE = "conversion.json"  # written last, so that its presence means a whole conversion


def cache_folder() -> Path:
    """Folder of downloads: ``CAUSALSAT_CACHE``, or the user's cache folder."""
    if own := os.environ.get("CAUSALSAT_CACHE"):
        return Path(own).expanduser()
    import pooch

    return Path(pooch.os_cache("causalsat"))


def converted_folder(name: str) -> Path:
    """Folder of a downloaded data set in the catalogue's layout."""
    return cache_folder() / name / "converted"


def fetch(name: str, spec: Download, target: Path) -> None:
    """Download a data set and convert it.

    Parameters
    ----------
    name : str
        Name of the entry.
    spec : Download
        Where it can be had.
    target : Path
        Folder for the converted files; filled beside it and renamed at the end.

    Raises
    ------
    CatalogError
        If the download fails, the archive lacks a file, or a file is not in the expected format.
    """
    _plain_name(name, f"the name of an entry that is downloaded, {name!r}")
    if spec.convert is not None and spec.convert not in convert.CONVERTERS:
        near = close_matches(spec.convert, convert.CONVERTERS)
        raise CatalogError(
            f"entry {name!r}: no converter {spec.convert!r}",
            expected=f"one of {list_names(convert.CONVERTERS)}",
            todo=f"did you mean {near[0]}?" if near else "a catalogue names one of the package's own converters",
        )
    LOG.info("downloading %s to %s", name, target.parent / "raw")
    raw = _download(name, spec, target.parent / "raw")
    converter: Callable[..., None] = convert.CONVERTERS[spec.convert] if spec.convert else convert.copy_files
    work = target.with_name(target.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    converter(raw, work)
    if not (work / DONE).is_file():
        (work / DONE).write_text("{}\n")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def _download(name: str, spec: Download, folder: Path) -> dict[str, Path]:
    """Fetch the files; returns them by name."""
    import pooch

    try:
        store, downloader = (_doi_store if spec.doi else _url_store)(pooch, spec, folder)
        wanted = _wanted(name, spec, list(store.registry))
        for file in wanted:
            _plain_name(file, f"the archive of {name!r} names the file {file!r}", folders=True)
        return {file: Path(store.fetch(file, downloader=downloader(file))) for file in wanted}
    except CatalogError:
        raise
    except Exception as error:  # requests, urllib3, pooch and the archive's own answers
        source = f"doi:{spec.doi}" if spec.doi else ", ".join(spec.urls.values())
        raise CatalogError(
            f"the download of {name!r} from {source} failed: {type(error).__name__}: {str(error)[:300]}",
            expected="an answer from the archive",
            todo="try again later, or fetch the files by hand, put them into "
            f"{folder} under the archive's names and call again",
        ) from error


def _plain_name(name: str, what: str, *, folders: bool = False) -> None:
    """Refuse a name that leads out of the cache."""
    parts = name.replace("\\", "/").split("/")
    if (len(parts) > 1 and not folders) or name != name.strip() or {"", ".", ".."} & set(parts) or ":" in parts[0]:
        raise CatalogError(
            what, expected="a plain name that stays in its folder", todo="do not use this catalogue or archive"
        )


def _url_store(pooch: Any, spec: Download, folder: Path) -> tuple[Any, Callable[[str], Any]]:
    registry = {file: f"sha256:{spec.sha256[file]}" for file in spec.urls}
    return pooch.create(path=folder, base_url="", registry=registry, urls=dict(spec.urls)), lambda _: None


def _doi_store(pooch: Any, spec: Download, folder: Path) -> tuple[Any, Callable[[str], Any]]:
    """A pooch of all files of a DOI.

    Dataverse turns CSV into ``.tab`` when it is deposited, but lists the checksum of the original: such a
    file is asked for in its original format.
    """
    store = pooch.create(path=folder, base_url=f"doi:{spec.doi}", registry=None, retry_if_failed=2)
    store.load_registry_from_doi()

    def original(url: str, output_file: Any, parent: Any) -> None:
        from pooch.downloaders import doi_to_repository

        repository = doi_to_repository(spec.doi)
        address = repository.download_url(url.rsplit("/", 1)[-1])
        pooch.HTTPDownloader(progressbar=True, params={"format": "original"})(address, output_file, parent)

    return store, lambda file: original if file.endswith(".tab") else pooch.DOIDownloader(progressbar=True)


def _wanted(name: str, spec: Download, offered: list[str]) -> list[str]:
    if spec.files is None:
        return offered
    from fnmatch import fnmatchcase

    wanted: list[str] = []
    for pattern in spec.files:
        matches = [file for file in offered if fnmatchcase(file, pattern)]
        if not matches:
            raise CatalogError(
                f"the archive of {name!r} has no file like {pattern!r}",
                expected=f"it among {list_names(offered)}",
                todo="the archive may have changed: compare with its page, and correct files: in the catalogue",
            )
        wanted += matches
    return list(dict.fromkeys(wanted))
