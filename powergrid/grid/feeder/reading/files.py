"""Which files a feeder reads: names are resolved here, inside the model's root, before the engine sees any.

A model is a program; what it may reach is decided in here. Knows no OpenDSS text.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from powergrid.errors import FeederError, Problem, nearest_names

#: What a feeder may come to; a model of 100,000 nodes is a tenth of it.
MOST_BYTES, MOST_LINES, MOST_REDIRECTS = 2**30, 5_000_000, 5_000
#: What is noted of a folder that a feeder moves to, in place of the file that a name leads to.
FOLDER, NO_FOLDER = "\0folder", "\0no folder"
#: What a person may say who calls, and no scenario file, which may come from anywhere.
TRUSTING = "whoever calls trusts it: --trust, or trust=True in Python"
#: Folders that files of others come to lie in, by the name that systems and browsers give them.
_GATHERING = frozenset(("downloads", "download", "desktop", "documents", "tmp", "temp", "public", "attachments"))
_OF_SYSTEM = frozenset(
    """bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys usr var users volumes library
    applications windows programdata""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Reference:
    """A file that a command names: where it does so, how it is written, and the file; None for a program library."""

    where: str
    written: str
    target: Path | None


class Place(NamedTuple):
    """Which feeder is read, and what it may reach.

    Attributes:
        master: The master file.
        root: Folder outside of which no file is read, unless trusted; the master file itself where only that may be.
        shipped: Folder that may be read besides.
        trust: Whether the model may do what it wants.
        ignore_case: Whether a name may lead to a file in other letters.
    """

    master: Path
    root: Path
    shipped: Path
    trust: bool
    ignore_case: bool = False

    def allows(self, real: Path) -> bool:
        """Whether a file may be read: anything in the root, and the shipped feeders, which hold nothing private."""
        return self.trust or real.is_relative_to(self.root) or real.is_relative_to(self.shipped)


def default_root(master: Path) -> Path:
    """Return the folder outside of which a model reads nothing where nobody names one.

    The folder above the master file's own, since what several feeders share usually lies beside them; the master
    file's own where the one above is a gathering place; the master file alone where it lies in such a place itself.
    """
    real = master.resolve()
    if is_gathering_place(real.parent):
        return real
    return real.parent if is_gathering_place(real.parent.parent) else real.parent.parent


def is_gathering_place(folder: Path) -> bool:
    """Whether files of several people or origins lie in a folder by accident.

    The file system's root, the system's own folders in it, a home folder and what is above it, the folder for temporary
    files, those by the name of Downloads, Desktop, Documents and the like, and those that all may put files into.
    """
    if folder == folder.parent or folder.name.lower() in _GATHERING:
        return True
    above = folder.parent
    if above == above.parent and folder.name.lower() in _OF_SYSTEM:
        return True
    if above.parent == above.parent.parent and above.name in ("home", "Users"):
        return True
    if any(each.is_relative_to(folder) for each in (Path(tempfile.gettempdir()).resolve(), *_home_folders())):
        return True
    try:
        return bool(folder.stat().st_mode & stat.S_ISVTX)
    except OSError:
        return True


def _home_folders() -> Iterator[Path]:
    """Yield the user's home folder: by the environment, and as the system has it."""
    try:
        yield Path.home().resolve()
        import pwd

        yield Path(pwd.getpwuid(os.getuid()).pw_dir).resolve()
    except (ImportError, KeyError, RuntimeError, OSError):  # not on Windows; a user without an entry
        return


def resolve(file: Path) -> Path | None:
    """Return the real path of a file, links followed, None where there can be none."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that cannot be one
        return None


def lead(place: Place, target: Path) -> str:
    """Return the real path of the file that a name leads to, empty where none may be read there."""
    real = resolve(target)
    # Path.is_file raises where a folder may not be entered.
    return str(real) if real is not None and place.allows(real) and os.path.isfile(target) else ""


def remedy(root: Path, wanted: Path) -> str:
    """Say what allows a file outside the root, and who may say so."""
    try:
        common = Path(os.path.commonpath([root, wanted.parent]))
    except ValueError:  # another drive
        return TRUSTING
    if is_gathering_place(common):
        where = "put the model into a folder of its own" if root.is_file() else "put it below that folder"
        return f"{where}, or {TRUSTING}"
    return f"'model_root: {common}' allows it (--model-root of check, else --set model_root={common}), or {TRUSTING}"


class Files:
    """The files of one feeder: find, read and note each.

    Attributes:
        looked: Real path of each place where a file was looked for, empty where none may be read there; of folders that
            names count from, whether they are there.
        hashes: SHA-256 of each file, in the order they were first read.
        references: What the commands name of files.
        problems: What could not be found or read.
        folders: Where names without a folder are looked for.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.looked: dict[Path, str] = {}
        self.hashes: dict[Path, bytes] = {}
        self.references: list[Reference] = []
        self.problems: list[Problem] = []
        self.folders: tuple[Path, ...] = ()
        self._order = hashlib.sha256()
        self._n_bytes = 0

    def digest(self) -> str:
        """Return a hash over all contents in the order they were read; where the files lie does not matter."""
        digest = self._order.copy()
        if self.place.trust:
            digest.update(b"trusted")
        return digest.hexdigest()

    def enter(self, file: Path) -> None:
        """Let names count from the folder of a file, and from that of its original where it is a link."""
        self.folders = tuple(dict.fromkeys((file.parent, file.resolve().parent)))

    def move(self, written: str) -> bool:
        """Let names count from a folder, if it is there."""
        for folder in self.folders:
            target = folder / written.replace("\\", "/")
            there = os.path.isdir(target)
            self.looked[target] = FOLDER if there else NO_FOLDER
            if there:
                self.folders = (target,)
                return True
        return False

    def read(self, file: Path, where: str, shown: str = "") -> bytes | None:
        """Read a file and note its content, or the problem.

        Raises:
            FeederError: All files together are more than any feeder.
        """
        try:
            with file.open("rb") as stream:
                if file not in self.hashes:
                    self._n_bytes += os.fstat(stream.fileno()).st_size
                if self._n_bytes > MOST_BYTES:
                    raise self.too_much(where)
                raw = stream.read(MOST_BYTES)
        except OSError as error:
            self.problems.append(Problem("unreadable-file", where, f"{shown}cannot be read: {error.strerror}"))
            return None
        self.hashes[file] = hashlib.sha256(raw).digest()
        self._order.update(self.hashes[file])
        return raw

    def refuse(self, code: str, where: str, text: str, remedy: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(code, where, text, remedy))

    def too_much(self, where: str) -> FeederError:
        """Return the error of a feeder without an end: redirects that double, a file of a terabyte."""
        most = f"{MOST_BYTES >> 20:,} MiB, {MOST_LINES:,} lines or {MOST_REDIRECTS:,} redirects"
        text = f"a feeder of more than {most} is not read"
        return FeederError(str(self.place.master), [Problem("unreadable-file", where, text)])

    def find(self, where: str, written: str, what: str, *, is_data: bool = False, ending: str = "") -> Path | None:
        """Resolve the file that a command names, or note the problem.

        Args:
            where: File and line of the command.
            written: The name as written.
            what: What the command does with it, for the problem.
            is_data: Whether it is a file of data, not of commands.
            ending: What OpenDSS adds to a name without an ending where there is no such file.
        """
        outside: Path | None = None
        for target in () if _is_of_windows(written) else self._targets(written, ending):
            self.looked[target] = lead(self.place, target)
            if self.looked[target]:
                real, tidy = Path(self.looked[target]), Path(os.path.normpath(target))
                found = tidy if tidy.resolve() == real else target
                self.references.append(Reference(where, written, found))
                return found
            real_or_none = resolve(target)
            if real_or_none is not None and not self.place.allows(real_or_none):
                outside = outside or real_or_none
        if outside is not None:
            limit = self.place.root
            text = f"{what} a file outside the model_root {limit}: {written!r}"
            self.problems.append(Problem("outside-root", where, text, remedy(limit, outside)))
            return None
        near, is_case = _nearest(self.folders[0], written)
        if _is_of_windows(written):  # what of it lies here, where the model came from there
            parts = written.replace("\\", "/").split("/")
            tails = ("/".join(parts[i:]) for i in range(1, len(parts)))
            near = next((tail for tail in tails if tail and os.path.isfile(self.folders[0] / tail)), "")
            is_case = False
        hint = f" (did you mean {near!r}?{' Letter case matters here' if is_case else ''})" if near else ""
        code = "file-case" if is_case else "missing-data-file" if is_data else "missing-file"
        advice = "write it as it is on the disk, or 'ignore_case: true' takes it" if is_case else ""
        self.problems.append(Problem(code, where, f"{what} a missing file {written!r}{hint}", advice))
        return None

    def _targets(self, written: str, ending: str) -> Iterator[Path]:
        """Yield the places where a name may lead to, the likeliest first."""
        name = written.replace("\\", "/")
        names = [name, name + ending] if ending and not Path(name).suffix else [name]
        for folder in self.folders:
            for each in names:
                yield folder / each
                if self.place.ignore_case and not os.path.isfile(folder / each):
                    near, is_case = _nearest(folder, each)
                    if is_case:
                        yield folder / near


def _is_of_windows(written: str) -> bool:
    """Whether a name begins with a drive or a server of Windows, and this is not Windows."""
    return os.name != "nt" and (written.startswith("\\\\") or written[1:3] in (":\\", ":/"))


def _nearest(folder: Path, written: str) -> tuple[str, bool]:
    """Return the nearest name of a file that is not there, and whether only the letter case of it is wrong.

    It is the same name in other letters, else a near one in its folder, else empty.
    """
    parts = written.replace("\\", "/").split("/")
    real: list[str] = []
    for place, part in enumerate(parts):
        try:
            names = [".", "..", *sorted(p.name for p in folder.joinpath(*real).iterdir())]
        except (OSError, ValueError):
            return "", False
        # A feeder written on Windows, where letter case does not matter.
        same = part if part in names else next((name for name in names if name.lower() == part.lower()), None)
        if same is None:
            near = nearest_names(part, names[2:]) if place == len(parts) - 1 else []
            return ("/".join([*real, near[0]]) if near else ""), False
        real.append(same)
    return ("", False) if real == parts else ("/".join(real), True)
