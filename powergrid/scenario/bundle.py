"""The files of a scenario as one value, for processes on machines that do not have them: choose, pack, unpack."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from powergrid.errors import FeederError, ScenarioError
from powergrid.files import DAMAGED, real_path, reason_of, telling
from powergrid.grid.engine.cache_folder import alone, cache_folder
from powergrid.grid.feeder.feeder import Feeder, Reference, list_feeders, list_references, read_feeder
from powergrid.grid.profiles.imported import RECORD, is_imported
from powergrid.grid.profiles.table_files import SUFFIXES
from powergrid.plain import as_plain
from powergrid.scenario.claims import settle_claims
from powergrid.scenario.files import as_env_config, is_scenario_file, map_paths, read_source
from powergrid.scenario.model import Scenario
from powergrid.scenario.versions import find_file
from powergrid.scenario.vocabulary import SHIPPED_SOURCES

#: The key of an ``env_config`` that holds a bundle, and what paths into it begin with.
BUNDLE_KEY = "bundle"
INSIDE = "bundle:"
_FOLDER = "bundles"
_TITLE = "what travels to other machines"
_UNUSED_AFTER_S = 30 * 86400.0
#: What this process has compared with its hash already, by cache folder and digest.
_unpacked: dict[tuple[Path | None, str], Path] = {}
#: A whole circuit of 8,500 nodes comes to 4 MB as text, a tenth of that packed.
MAX_BYTES = 256 * 1024**2
_YAML_FOLDER, _PROFILES_FOLDER = "scenario", "profiles"


def pack_env_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return an ``env_config`` that means the same on machines which have none of the scenario's files.

    Scenario file, feeders (every file that is read for them) and tables of profiles go along by content, under the
    key ``bundle``; there they are unpacked into the user's cache. What comes with the package stays a name.

    Args:
        config: An ``env_config``, or a scenario's name or path.

    Returns:
        The same where nothing has to travel, else one that pickles and needs no file of this machine.

    Raises:
        ScenarioError: a feeder refers to files outside of what travels, with file, line and remedy; all of them.
        FeederError: a feeder cannot be read at all.
    """
    settings = as_env_config(config)
    if BUNDLE_KEY in settings:
        return settings
    settings = as_plain(settings, "env_config")
    packing = _Packing(settings)
    packed = map_paths(settings, packing.change)
    if packing.trust:  # what this user lets a file decide, nobody else has to
        packed["trust"] = True
    bundle = packing.bundle()
    return settings if bundle is None else {**packed, BUNDLE_KEY: bundle}


@dataclass(frozen=True)
class Bundle:
    """Files and folders by their relative paths, with a hash of names and contents.

    Attributes:
        digest: SHA-256 over the paths and contents.
        archive: The files as a ZIP archive.
    """

    digest: str
    archive: bytes = field(repr=False)

    @classmethod
    def of(cls, files: Mapping[str, bytes], folders: Iterable[str] = ()) -> Bundle:
        """Bundle files, and folders that shall be there even if they are empty."""
        contents = dict(sorted(files.items())) | {f"{folder}/": b"" for folder in sorted(set(folders))}
        # ZipInfo without a date: the same files make the same archive.
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return cls(_digest(files), stream.getvalue())

    def unpack(self) -> Path:
        """Return a folder with the files: in the user's cache, under their hash, written once.

        Raises:
            ScenarioError: the archive does not hold what its hash says, or paths that leave the folder.
        """
        cache = cache_folder()
        known = _unpacked.get((cache, self.digest))
        if known is None or not known.is_dir():
            known = _unpacked[cache, self.digest] = self._kept(cache) or self._for_this_process()
        return known

    def _kept(self, cache: Path | None) -> Path | None:
        """Unpack into the cache; None where there is no place for it."""
        if cache is None:
            return None
        place = cache / _FOLDER
        final = place / self.digest
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            with alone(_FOLDER, self.digest):
                # Compared the first time a process asks: others may have changed it, or written half of it.
                if not final.is_dir() or _digest(_read(final)) != self.digest:
                    shutil.rmtree(final, ignore_errors=True)
                    self.write(final)
            os.utime(final)
            _forget_unused(place)
        except OSError:  # read-only, full
            return None
        return final

    def _for_this_process(self) -> Path:
        with telling(tempfile.gettempdir()):
            folder = Path(tempfile.mkdtemp(prefix="powergrid-bundle-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            self.write(folder)
        return folder

    def write(self, folder: Path) -> None:
        """Write the files into a folder.

        Raises:
            ScenarioError: the archive does not hold what its hash says, or paths that leave the folder.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
                names = archive.namelist()
                # It comes from another machine: nothing of it may land beside its folder.
                wrong = [name for name in names if not _stays_inside(name)]
                if wrong:
                    raise ScenarioError("bundle", [f"holds {name!r}, which leaves its folder" for name in wrong])
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise ScenarioError("bundle", [f"unpacks to more than the {MAX_BYTES / 1e6:,.0f} MB that travel"])
                contents = {name: archive.read(name) for name in names}
        except DAMAGED as error:
            raise ScenarioError("bundle", [f"is damaged: {reason_of(error)}; pack it anew"]) from None
        if _digest({name: content for name, content in contents.items() if not name.endswith("/")}) != self.digest:
            raise ScenarioError("bundle", [f"does not hold what its hash {self.digest[:12]} says: pack it anew"])
        for name, content in contents.items():
            target = folder / name
            if name.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def unpack_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an ``env_config`` whose paths lead to files on this machine: those of its bundle, where it has one.

    Raises:
        ScenarioError: what stands under ``bundle`` is none, or is damaged.
    """
    settings = as_env_config(config)
    bundle = settings.pop(BUNDLE_KEY, None)
    settings = dict(as_plain(settings, "env_config"))
    if bundle is None:
        return settings
    if not isinstance(bundle, Bundle):
        wanted = f"{BUNDLE_KEY}: is a {type(bundle).__name__}, not what powergrid.training.pack_env_config makes"
        raise ScenarioError("env_config", [wanted])
    folder = bundle.unpack()

    def lead_inside(written: str | Path, _: str) -> str | Path:
        name = str(written)
        return str(folder / name.removeprefix(INSIDE)) if name.startswith(INSIDE) else written

    return map_paths(settings, lead_inside)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _forget_unused(place: Path) -> None:
    """Remove what no process has asked for in a month, and what one left half written."""
    oldest = time.time() - _UNUSED_AFTER_S
    for folder in place.iterdir():
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


class _Packing:
    """Gather files under the paths they shall have, and what does not go."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.files: dict[str, bytes] = {}
        self.problems: list[str] = []
        self._folders: dict[Path, str] = {}
        self._feeders: dict[str, Feeder] = {}
        source = settings.get("env_name", settings.get("scenario"))
        self._data: dict[str, Any] = {}  # of a scenario file
        if isinstance(source, str | Path) and is_scenario_file(source):
            self._data = settle_claims(Path(source), read_source(source)[1], settings)
        keys = {**(read_source(source)[1] if isinstance(source, Mapping | Scenario) else self._data), **settings}
        self._root = keys.get("model_root") if isinstance(keys.get("model_root"), str | Path) else None
        self.trust = keys.get("trust") is True
        self._ignore_case = keys.get("ignore_case") is True

    def change(self, written: str | Path, key: str) -> str | Path:
        """Take in what a value names, and give what stands for it."""
        if key in ("env_name", "scenario"):
            if is_scenario_file(written):
                return self._scenario(Path(written))
            return written if find_file(str(written)) is not None else self._feeder(written, self._root)
        if key == "model_root":
            return INSIDE + self._folder(real_path(written))
        if key == "profiles":
            return written if str(written) in SHIPPED_SOURCES else self._table(Path(written))
        return self._feeder(written, None if key == "microgrid" else self._root)

    def bundle(self) -> Bundle | None:
        """Pack it, and read the feeders from the copy to be sure that they are the same; None where nothing travels.

        Raises:
            ScenarioError: something cannot travel, a copy is not what it is a copy of, or it is too much.
        """
        if self.problems:
            raise ScenarioError(_TITLE, self.problems)
        if not self.files and not self._folders:
            return None
        # Ray sends it with every environment's configuration.
        n_bytes = sum(map(len, self.files.values()))
        if n_bytes > MAX_BYTES:
            most = f"{n_bytes / 1e6:,.0f} MB of files are more than the {MAX_BYTES / 1e6:,.0f} MB that travel"
            raise ScenarioError(_TITLE, [f"{most}; leave data out, or use fewer feeders"])
        bundle = Bundle.of(self.files, self._folders.values())
        folder = bundle.unpack()
        problems = []
        for path, feeder in self._feeders.items():
            root = folder / self._folders[_top_of(feeder)]
            try:
                copy = read_feeder(folder / path, model_root=root, trust=feeder.trust, ignore_case=feeder.ignore_case)
            except FeederError as error:
                problems += [f"{feeder.master}: a copy cannot be read: {problem}" for problem in error.problems]
                continue
            if copy.digest != feeder.digest or not all(file.is_relative_to(folder) for file in copy.files):
                problems.append(f"{feeder.master}: a copy reads other files than it does; replace links by files")
        if problems:
            raise ScenarioError(_TITLE, problems)
        return bundle

    def _scenario(self, file: Path) -> str:
        """Take in a scenario file, with its own paths leading into the bundle."""
        data = map_paths(self._data, self.change)
        # Paths in a scenario file count from its own folder, which is one below the bundle's.
        up = map_paths(data, lambda value, _: re.sub(f"^{INSIDE}", "../", str(value)))
        name = f"{_YAML_FOLDER}/{file.name}"
        self.files[name] = yaml.safe_dump(up, sort_keys=False, allow_unicode=True).encode()
        return INSIDE + name

    def _table(self, file: Path) -> str:
        """Take in a table of profiles, or what an import of measurements made: its record and the table beside it."""
        if is_imported(file):
            folder = file if file.is_dir() else file.parent
            place = f"{_PROFILES_FOLDER}/{len(self.files)}/{folder.name}"
            for each in sorted(folder.iterdir()):
                if each.is_file() and (each.name == RECORD or each.name.lower().endswith(SUFFIXES)):
                    self.files[f"{place}/{each.name}"] = each.read_bytes()
            return INSIDE + place
        if not file.is_file():  # whoever reads it says so
            return str(file)
        content = file.read_bytes()
        same = [name for name, known in self.files.items() if known == content and name.endswith(f"/{file.name}")]
        name = same[0] if same else f"{_PROFILES_FOLDER}/{len(self.files)}/{file.name}"
        self.files[name] = content
        return INSIDE + name

    def _folder(self, root: Path) -> str:
        """Return a model's root's place in the bundle."""
        # Its own name stays, since feeders may be called by it.
        return self._folders.setdefault(root, f"{len(self._folders)}/{root.name or 'root'}")

    def _feeder(self, written: str | Path, root: str | Path | None) -> str:
        """Take in all files of a feeder, and give its master file's place."""
        if str(written) in list_feeders():
            return str(written)
        feeder = read_feeder(written, model_root=root, trust=self.trust, ignore_case=self._ignore_case)
        top = _top_of(feeder)
        problems = [problem for each in list_references(feeder) if (problem := _obstacle(each, top))]
        if problems:
            self.problems += [problem for problem in dict.fromkeys(problems) if problem not in self.problems]
            return str(written)
        folder = self._folder(top)
        # Only what was read goes: nothing else that lies in the folder is the model's, or anybody's business.
        for file in feeder.files:
            content = file.read_bytes()
            for path in _places(file, top):
                self.files[f"{folder}/{path}"] = content
        real = feeder.master.resolve()
        place = f"{folder}/{(real.parent / feeder.master.name).relative_to(top).as_posix()}"
        self.files[place] = real.read_bytes()
        self._feeders[place] = feeder
        return INSIDE + place


def _top_of(feeder: Feeder) -> Path:
    """Return the folder that a feeder's files lie in."""
    root = feeder.model_root or feeder.master.parent
    return root.parent if root.is_file() else root  # nothing but the master file may be read there


def _places(file: Path, root: Path) -> list[str]:
    """Return where a file lies below the root."""
    # As it is written, and as links lead to it: links do not travel, but both paths may be named.
    found = [path.relative_to(root).as_posix() for path in (file, file.resolve()) if path.is_relative_to(root)]
    return list(dict.fromkeys(found))


def _obstacle(reference: Reference, root: Path) -> str:
    """Say why a file that a feeder names does not travel, and what to change; empty where it does."""
    where, written, target = reference.where, reference.written, reference.target
    if target is None:
        return f"{where}: the program library {written!r} does not travel; take it out of the model"
    real = target.resolve()
    if not real.is_relative_to(root):
        common = os.path.commonpath([root, real.parent])
        return (
            f"{where}: {written!r} lies outside the model_root {root}, and only what is in it travels; "
            f"'model_root: {common}' takes it along"
        )
    if Path(written.replace("\\", "/")).is_absolute():
        folder = Path(where.rpartition(":")[0]).parent
        return (
            f"{where}: {written!r} is an absolute path, which leads nowhere on another machine; "
            f"write it as {os.path.relpath(target, folder)!r}"
        )
    return ""
