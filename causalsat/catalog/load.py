"""Reading a catalogue, and making a Study from one of its entries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from causalsat.catalog import fetch, paths
from causalsat.catalog.marks import Marked, explain, read_yaml
from causalsat.catalog.schema import Entry, ImagerySpec, Roles, SimulateSpec, TableSpec
from causalsat.core.notebook import fragment, frame_table
from causalsat.exceptions import CatalogError
from causalsat.simulate import satellite_trial
from causalsat.study import Study
from causalsat.study.building import close_matches, list_names

FILE_NAME = "data_catalog.yaml"


class Catalog(Mapping[str, Entry]):
    """Data sets by name.

    Parameters
    ----------
    entries : mapping of str to Entry
        The data sets.
    sources : mapping of str to Marked
        The file that each came from.

    Examples
    --------
    >>> catalog = load_catalog()
    >>> catalog["uganda_yop"].roles.outcome
    'outcome'
    """

    def __init__(self, entries: Mapping[str, Entry], sources: Mapping[str, Marked]) -> None:
        self._entries, self._sources = dict(entries), dict(sources)

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            near = close_matches(str(name), self._entries)
            raise CatalogError(
                f"no data set {name!r} in {list_names(self.files)}",
                expected=f"one of {list_names(self._entries)}",
                todo=f"did you mean {' or '.join(near)}?" if near else "see load_catalog().list()",
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Catalog {', '.join(self._entries)}>"

    @property
    def files(self) -> list[str]:
        """The files that the entries came from."""
        return list(dict.fromkeys(str(source.file) for source in self._sources.values()))

    def where(self, name: str, *keys: str) -> str:
        """File and line of an entry's key."""
        return self._sources[name].where(("datasets", name, *keys))

    def base(self, name: str) -> Path:
        """Folder that an entry's relative paths start from."""
        return self._sources[name].file.resolve().parent

    def list(self) -> Any:
        """Table of the data sets: name, kind, whether the data are here, title, licence."""
        import pandas as pd

        rows = [(n, e.kind, self.status(n), e.title or e.description, e.licence) for n, e in self._entries.items()]
        return pd.DataFrame(rows, columns=["name", "kind", "data", "title", "licence"])

    def status(self, name: str) -> str:
        """Where an entry's data are: "here", "made on demand", "on the net", "set NAME", "download" or "absent"."""
        entry = self[name]
        if entry.kind == "simulated":
            return "made on demand"
        specs = [entry.units.file] if entry.units else [spec.path for spec in entry.imagery.values()]
        try:
            here = [_resolve(self, name, text, ("folder",)) for text in specs]
            for text in here:
                paths.existing(text, "")
        except CatalogError:
            if fetch.converted_folder(name).is_dir():
                return "here"
            if entry.download is not None:
                return "download"
            unset = [v for text in (entry.folder, *specs) for v in paths.unset_variables(text)]
            return f"set {unset[0]}" if unset else "absent"
        return "on the net" if all(paths.is_address(text) for text in here) else "here"

    def _repr_html_(self) -> str:
        return fragment(frame_table(self.list(), "Data sets", max_rows=100))


def load_catalog(path: str | os.PathLike[str] | None = None) -> Catalog:
    """Read a data catalogue.

    Parameters
    ----------
    path : path, optional
        A catalogue file. Default: ``data_catalog.yaml`` in the working folder, and behind it the package's own,
        whose entries stay available under names that the first does not use.

    Raises
    ------
    CatalogError
        If a file cannot be read or an entry does not follow the schema; the message names file, line and key.

    Examples
    --------
    >>> "simulated_trial" in load_catalog()
    True
    """
    if path is not None:
        return _read(Path(path).expanduser())
    own, packaged = Path(FILE_NAME), packaged_catalog()
    files = [file for file in (own, packaged) if file is not None and file.is_file()]
    if not files:
        raise CatalogError(
            f"no {FILE_NAME} in {Path.cwd()}, and the package's own is not installed",
            expected="a data catalogue",
            todo="pass its path, or reinstall causalsat",
        )
    entries: dict[str, Entry] = {}
    sources: dict[str, Marked] = {}
    for file in files:
        catalog = _read(file)
        for name in catalog:
            entries.setdefault(name, catalog[name])
            sources.setdefault(name, catalog._sources[name])
    return Catalog(entries, sources)


def packaged_catalog() -> Path | None:
    """The package's own catalogue: the file of the checkout, or the copy of it in an installed package."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1]
    files = [here / FILE_NAME]
    if (checkout / "setup.cfg").is_file():
        files.insert(0, checkout / FILE_NAME)  # a link in the package, which not every system has as one
    return next((file for file in files if file.is_file()), None)


def _read(file: Path) -> Catalog:
    marked = read_yaml(file)
    data = marked.data
    if not isinstance(data, dict) or not isinstance(data.get("datasets"), dict):
        raise CatalogError(f"{file} has no datasets", expected="datasets:, and below it one key for each data set")
    unknown = [k for k in data if k not in ("datasets", "version")]
    if unknown:
        raise CatalogError(
            f"{marked.where((unknown[0],))}: unknown key {unknown[0]!r}",
            expected="datasets (and version: 1)",
            todo="indent it below datasets if it is a data set",
        )
    if data.get("version", 1) != 1:
        raise CatalogError(f"{marked.where(('version',))}: version {data['version']!r}", expected="version: 1")
    entries = {}
    for name, content in data["datasets"].items():
        at = ("datasets", name)
        if not isinstance(name, str) or not isinstance(content, dict):
            raise CatalogError(
                f"{marked.where(at)}: entry {name!r} is {content!r}",
                expected="a name, and below it keys such as kind, units, roles",
                todo="indent its keys below the name",
            )
        try:
            entries[name] = Entry.model_validate(content)
        except ValidationError as error:
            raise explain(error, Entry, marked, at, name) from None
    return Catalog(entries, dict.fromkeys(entries, marked))


def _as_catalog(catalog: Any) -> Catalog:
    return catalog if isinstance(catalog, Catalog) else load_catalog(catalog)


# ---------------------------------------------------------------------- entries to objects
def load_study(
    name: str,
    catalog: Catalog | str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    network: bool = False,
    **options: Any,
) -> Any:
    """The study of a catalogue entry, with its imagery.

    Parameters
    ----------
    name : str
        Name of the entry.
    catalog : Catalog or path, optional
        Default: see :func:`load_catalog`.
    download : bool, default False
        Whether to fetch the data where they are not here. Nothing is downloaded without it.
    network : bool, default False
        Whether imagery may be read over the net. Nothing is asked of it without this, or ``network: true`` in the
        entry; addresses that hold an environment variable need it in any case.
    **options
        Arguments of :class:`causalsat.Study` to use instead of the entry's (``covariates=``, ``imagery=``, ...);
        for a simulated entry also those of :func:`causalsat.simulate.satellite_trial`.

    Returns
    -------
    Study

    Raises
    ------
    CatalogError
        If there is no such entry, it is no trial, or its data are not here.
    """
    known = _as_catalog(catalog)
    entry = known[name]
    if entry.kind == "simulated":
        return _simulated(name, entry, options)
    if entry.kind != "trial" or entry.units is None or entry.roles is None:
        raise CatalogError(
            f"{known.where(name)}: {name!r} is imagery, not a trial",
            expected="an entry of kind trial or simulated",
            todo=f"open it with causalsat.catalog.load_imagery({name!r})",
        )
    folder, roles, original = _locate(known, name, entry, download)
    units = _table(known, name, "units", entry.units, folder, check=original)
    arguments: dict[str, Any] = {} if roles is None else roles.model_dump(exclude_none=True)
    arguments |= {
        "name": name,
        "description": entry.description.strip(),
        "licence": entry.licence,
        "citation": entry.citation.strip(),
        "treatment_date": entry.treatment_date,
        "chip_size_m": entry.chip_size_m,
        "randomised": entry.randomised,
        "read_options": entry.units.read_options,
    }
    if entry.places is not None and "places" not in options:
        arguments["places"] = _table(known, name, "places", entry.places, folder, check=original)
    if entry.imagery and "imagery" not in options:
        arguments["imagery"] = _imagery(known, name, entry, folder, check=original, network=network)
    return Study.from_file(units, **{**arguments, **options})


def load_imagery(
    name: str,
    catalog: Catalog | str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    network: bool = False,
) -> Any:
    """The imagery of a catalogue entry: an Imagery, or a dict of them where the entry has several.

    Parameters
    ----------
    name, catalog, download, network
        As in :func:`load_study`.

    Raises
    ------
    CatalogError
        If there is no such entry, it has no imagery, or the files are not here.
    """
    known = _as_catalog(catalog)
    entry = known[name]
    if entry.kind == "simulated":
        return _simulated(name, entry, {}).imagery
    if not entry.imagery:
        raise CatalogError(f"{known.where(name)}: {name!r} has no imagery", expected="imagery: in the entry")
    folder, _, original = _locate(known, name, entry, download)
    return _imagery(known, name, entry, folder, check=original, network=network)


def _simulated(name: str, entry: Entry, options: dict[str, Any]) -> Any:
    spec = entry.simulate or SimulateSpec()
    settings = spec.model_dump(exclude_none=True)
    settings |= {key: options.pop(key) for key in list(options) if key in SimulateSpec.model_fields}

    study = satellite_trial(**settings).study()
    about = {"name": name, "licence": entry.licence, "citation": entry.citation.strip()}
    return study.replace(**{**about, **options})


def _locate(catalog: Catalog, name: str, entry: Entry, download: bool) -> tuple[Path, Roles | None, bool]:
    """Folder of the data, the roles that go with it, and whether it is the layout that the checksums are of."""
    base = catalog.base(name)
    converted = fetch.converted_folder(name)
    try:
        folder = Path(paths.expand(entry.folder, base, catalog.where(name, "folder")))
        if entry.download is None or not entry.units or (folder / entry.units.file).exists():
            return folder, entry.roles, True
        problem = f"{folder / entry.units.file} does not exist"
    except CatalogError as error:
        if entry.download is None:
            raise
        problem = error.what
    roles = entry.download.roles or entry.roles
    if (converted / fetch.DONE).is_file():
        return converted, roles, False
    if download:
        fetch.fetch(name, entry.download, converted)
        return converted, roles, False
    variables = paths.unset_variables(entry.folder) or ["the folder"]
    size = f" (about {entry.download.size_mb:,.0f} MB)" if entry.download.size_mb else ""
    source = f"doi:{entry.download.doi}" if entry.download.doi else "its addresses"
    place = f"set {variables[0]} to the folder that holds {Path(entry.folder).name}/"
    raise CatalogError(
        f"the data of {name!r} are not here: {problem}",
        expected=f"the files as the catalogue describes them ({catalog.where(name)})",
        todo=f"{place}, or load_study({name!r}, download=True) to fetch them from {source}{size}",
    )


def _resolve(catalog: Catalog, name: str, text: str, keys: tuple[str, ...], folder: Path | None = None) -> str:
    where = catalog.where(name, *keys)
    if paths.is_address(text):
        return paths.expand(text, Path(), where)
    if folder is None:
        folder = Path(paths.expand(catalog[name].folder, catalog.base(name), catalog.where(name, "folder")))
    return paths.expand(text, folder, where)


def _table(catalog: Catalog, name: str, key: str, spec: TableSpec, folder: Path, *, check: bool) -> str:
    where = catalog.where(name, key, "file")
    path = paths.existing(_resolve(catalog, name, spec.file, (key, "file"), folder), where)
    if check:
        paths.verify(path, spec.sha256, catalog.where(name, key, "sha256"))
    return path


def _imagery(catalog: Catalog, name: str, entry: Entry, folder: Path, *, check: bool, network: bool) -> Any:
    opened = {
        key: _open(catalog, name, key, spec, folder, check=check, network=network)
        for key, spec in entry.imagery.items()
    }
    return next(iter(opened.values())) if len(opened) == 1 else opened


def _open(
    catalog: Catalog, name: str, key: str, spec: ImagerySpec, folder: Path, *, check: bool, network: bool
) -> Any:
    from causalsat.imagery import open_embeddings, open_imagery  # rasterio, which reading a catalogue does without

    where = catalog.where(name, "imagery", key, "path")
    paths.check_network(spec.path, network or spec.network, network, where)
    path = paths.existing(_resolve(catalog, name, spec.path, ("imagery", key, "path"), folder), where)
    if check:
        paths.verify(path, spec.sha256, catalog.where(name, "imagery", key, "sha256"))
    settings = spec.model_dump(exclude={"kind", "path", "options", "sha256"}, exclude_none=True)
    settings["network"] = network or spec.network
    if spec.kind == "embedding":
        settings = {k: v for k, v in settings.items() if k not in ("scale", "offset", "mask", "mosaic")}
        return open_embeddings(path, name=key, **settings, **spec.options)
    if spec.kind == "stac" and isinstance(spec.dates, list):
        settings["dates"] = slice(str(spec.dates[0]), str(spec.dates[-1]))
    return open_imagery(path, name=key, **settings, **spec.options)
