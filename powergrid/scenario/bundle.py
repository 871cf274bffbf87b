"""The files of a scenario as one value, for processes on machines that do not have them; it chooses none."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from powergrid.errors import ScenarioError
from powergrid.grid.engine.store import cache_folder
from powergrid.scenario.paths import map_paths

#: The key of an ``env_config`` that holds a bundle, and what paths into it begin with.
BUNDLE_KEY = "bundle"
INSIDE = "bundle:"
_FOLDER = "bundles"
_UNUSED_AFTER_S = 30 * 86400.0
_unpacked: dict[str, Path] = {}


@dataclass(frozen=True)
class Bundle:
    """Files and folders by their relative paths, with a hash of names and contents.

    Attributes:
        digest: SHA-256 over the paths and contents.
        n_files: Number of files.
        archive: The files as a ZIP archive.
    """

    digest: str
    n_files: int
    archive: bytes = field(repr=False)

    @classmethod
    def of(cls, files: Mapping[str, bytes], folders: Iterable[str] = ()) -> Bundle:
        """Bundle files, and folders that shall be there even if they are empty."""
        contents = dict(sorted(files.items())) | {f"{folder}/": b"" for folder in sorted(set(folders))}
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return cls(_digest(files), len(files), stream.getvalue())

    def unpack(self) -> Path:
        """Return a folder with the files: in the user's cache, under their hash, written once.

        What lies there is compared with the hash the first time a process asks, and written anew where it differs.

        Raises:
            ScenarioError: the archive does not hold what its hash says, or paths that leave the folder.
        """
        known = _unpacked.get(self.digest)
        if known is None or not known.is_dir():
            known = _unpacked[self.digest] = self._kept() or self._for_this_process()
        return known

    def _kept(self) -> Path | None:
        """Unpack into the cache; None where there is no place for it."""
        cache = cache_folder()
        if cache is None:
            return None
        place = cache / _FOLDER
        final = place / self.digest
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            for _ in range(3):  # another process may do the same at the same time
                if final.is_dir() and _digest(_read(final)) == self.digest:
                    os.utime(final)
                    _forget_unused(place)
                    return final
                if final.exists():
                    shutil.rmtree(final)
                temporary = Path(tempfile.mkdtemp(prefix=".", dir=place))
                try:
                    self.write(temporary)
                    with contextlib.suppress(OSError):  # there by now
                        temporary.rename(final)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        except OSError:  # read-only, full
            return None
        return None

    def _for_this_process(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="powergrid-bundle-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.write(folder)
        return folder

    def write(self, folder: Path) -> None:
        """Write the files into a folder.

        Raises:
            ScenarioError: the archive does not hold what its hash says, or paths that leave the folder.
        """
        with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
            names = archive.namelist()
            wrong = [name for name in names if not _stays_inside(name)]
            if wrong:
                raise ScenarioError("bundle", [f"holds {name!r}, which leaves its folder" for name in wrong])
            contents = {name: archive.read(name) for name in names}
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
    settings = dict(config)
    bundle = settings.pop(BUNDLE_KEY, None)
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
