"""Shut this process in: what it may open, which calls of the system it may make, how much time and memory it takes.

On Linux by Landlock (files, ports, signals) and seccomp (calls), without privileges and without a library of its own;
what the kernel or the platform lacks is said, and the rest holds all the same. There is no way back: it is for
processes that are started to be shut in, see ``own_process``.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import re
import signal
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMORY_BYTES = 8 * 2**30
_FILE_BYTES = 512 * 2**20
_LEAST_MEMORY_BYTES = 2 * 2**30
#: Libraries that a package may load late, and what programs read that only want to know where and when they are.
_OF_THE_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache",
    "/proc/self", "/dev/null", "/dev/zero", "/dev/urandom", "/etc/localtime", "/usr/share/zoneinfo",
    "/usr/share/locale",
)  # fmt: skip
#: A path in full, in quotes or without blanks.
_PATH = re.compile(r"""["'](/[^"']+)["']|(?:^|(?<=[\s=(\[{]))(/[^\s"'\])},!]+)""")
_FORBIDDEN = "it would start a program, reach the network, or touch files and processes that are not its own"

# -- Landlock, see linux/landlock.h

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE  # the others are rights of folders
#: Rights on files by the version that brought them.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: _IOCTL_DEVICE}
_TCP_FROM, _TCP_RIGHTS = 4, 0b11  # bind, connect
_SCOPES_FROM, _SCOPES = 6, 0b11  # abstract sockets, signals
_LATER = {3: "truncating", 4: "TCP ports", 5: "ioctl", 6: "signals and abstract sockets"}

# -- seccomp, see linux/seccomp.h and linux/filter.h

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_NEW_THREAD = 0x10000  # CLONE_THREAD
_NO_SUCH_CALL = 38
_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 38, 1  # of prctl

#: Calls that end the process, by what a feeder would do with them: number on x86_64 and on aarch64, None where the
#: architecture has none. From 424 on they are the same everywhere.
_CALLS: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "start a program": {
        "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    },
    "reach the network": {
        "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
        "accept": (43, 202), "accept4": (288, 242), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
    },
    "touch another process": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "process_madvise": (440, 440), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
        "mq_open": (240, 180), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    },
    "change files that are not its own": {
        "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
        "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
        "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
        "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
        "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    },
    "change the machine": {
        "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268),
        "unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
        "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
        "bpf": (321, 280), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
        "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
        "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "add_key": (248, 217),
        "request_key": (249, 218), "keyctl": (250, 219), "personality": (135, 92), "iopl": (172, None),
        "ioperm": (173, None), "modify_ldt": (154, None), "sethostname": (170, 161), "setdomainname": (171, 162),
        "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
        "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
        "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "capset": (126, 91),
        "syslog": (103, 116), "vhangup": (153, 58),
    },
}  # fmt: skip


@dataclass(frozen=True)
class _Machine:
    """What seccomp calls an architecture, its column in the table of calls, and calls that some arguments may have."""

    audit: int
    column: int
    seccomp: int
    clone: int
    kill: int
    tgkill: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, 317, 56, 62, 234),
    "aarch64": _Machine(0xC00000B7, 1, 277, 220, 129, 131),
}
_CLONE3 = 435


@dataclass(frozen=True)
class Confinement:
    """What shuts a process in, and what does not.

    Attributes:
        holds: What is enforced, a few words each.
        missing: What could not be had here, with the reason; empty where all of it holds.
        denied: Files and folders that are there and could not be opened; a program takes them for missing.
    """

    holds: tuple[str, ...]
    missing: tuple[str, ...]
    denied: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join((*self.holds, *(f"not: {each}" for each in self.missing)))


def confine(
    readable: Iterable[str | Path],
    writable: Iterable[str | Path],
    timeout_s: float,
    *,
    landlock_abi: int | None = None,
    seccomp: bool = True,
) -> Confinement:
    """Shut this process in for good, and return what of it holds.

    Import and open before it what is needed after: the folders of Python and of its packages stay readable, but a
    library that is loaded later may want more.

    Args:
        readable: Files and folders, with all in them, that may be read.
        writable: Folders in which anything may be done but run programs.
        timeout_s: Processor time until the system ends the process [s].
        landlock_abi: The version of Landlock to go by instead of the kernel's; 0 for none.
        seccomp: Whether to filter calls of the system, where it can be done.
    """
    holds, missing = list[str](), list[str]()
    if limits := limit_process(timeout_s):
        holds.append(limits)
    else:
        missing.append(
            f"limits of memory and processor time: {sys.platform} has none; what waits for it limits the time"
        )
    if sys.platform != "linux":
        missing.append(f"files and system calls: Landlock and seccomp are of Linux, this is {sys.platform}")
        return Confinement(tuple(holds), tuple(missing))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        missing.append("files and system calls: no_new_privs is refused here")
        return Confinement(tuple(holds), tuple(missing))
    parts: tuple[Callable[[], str], ...] = (
        lambda: _restrict_files(libc, readable, writable, landlock_abi),
        lambda: _filter_calls(libc, seccomp),
    )
    for restrict in parts:
        try:
            holds.append(restrict())
        except _LackingError as lacking:
            missing.append(str(lacking))
    return Confinement(tuple(holds), tuple(missing))


def limit_process(timeout_s: float) -> str:
    """Limit this process in memory, processor time and the size of files; say how far, empty where nothing can be."""
    try:
        import resource
    except ImportError:  # not on Windows
        return ""
    # A file can make OpenDSS take all memory or never return; who waits for the process ends what merely sleeps.
    seconds, memory = math.ceil(timeout_s) + 1, _memory_bytes()
    limits = {"AS": memory, "CPU": seconds, "FSIZE": _FILE_BYTES, "CORE": 0}
    held = []
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit on the address space
            resource.setrlimit(kind, (limit, hard))
            held.append(name)
    said = {"AS": f"{memory / 2**30:.1f} GiB of memory", "CPU": f"{seconds} s of processor time"}
    return "limits: " + ", ".join(text for name, text in said.items() if name in held) if held else ""


def describe_kill(status: int) -> str:
    """Say what a confined process did that its filter ended it for; empty where that was not it."""
    return _FORBIDDEN if -status == getattr(signal, "SIGSYS", None) else ""


def find_denied(text: str) -> list[str]:
    """Return the files and folders in full that a text names, that are there, and that this process may not open.

    Of a file that is not there its folder is told: nothing can be written there either.
    """
    paths = dict.fromkeys(quoted or bare for quoted, bare in _PATH.findall(text))
    found = dict.fromkeys(denied for path in paths if (denied := _denied(path)))
    return list(found)


def _denied(path: str) -> str:
    """Return a path, or the folder of one where nothing is, if it may not be opened; else nothing."""
    for place in (path, os.path.dirname(path)):
        try:
            os.close(os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        except PermissionError:
            return place
        except (OSError, ValueError):
            return ""
        return ""
    return ""


class _LackingError(Exception):
    """Say what the kernel lacks."""


def _memory_bytes() -> int:
    """Return what a confined process may take: never so much that the system has to look for a victim."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _MEMORY_BYTES
    return min(_MEMORY_BYTES, max(there * 3 // 4, _LEAST_MEMORY_BYTES))


def library_files() -> list[str]:
    """Return what Python and its packages may want to read at any time: their folders, locale, zones, devices."""
    paths = sysconfig.get_paths()
    own = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    packages = [each for each in sys.path if Path(each).name in ("site-packages", "dist-packages", "lib-dynload")]
    shared = [str(Path(prefix, "lib")) for prefix in (sys.prefix, sys.base_prefix)]
    return [*own, *packages, *shared, str(Path(__file__).parents[2]), *_OF_THE_SYSTEM]


# -- files


def _restrict_files(
    libc: ctypes.CDLL, readable: Iterable[str | Path], writable: Iterable[str | Path], abi: int | None
) -> str:
    if abi is None:
        abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if abi < 1:
        raise _LackingError("Landlock: not in this kernel, so files outside can be read and written")
    rights = sum(bits for version, bits in _FILE_RIGHTS.items() if version <= abi)
    attributes = struct.pack("=QQQ", rights, _TCP_RIGHTS * (abi >= _TCP_FROM), _SCOPES * (abi >= _SCOPES_FROM))
    size = 24 if abi >= _SCOPES_FROM else 16 if abi >= _TCP_FROM else 8  # later fields are unknown to older kernels
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        raise _LackingError(f"Landlock: {os.strerror(ctypes.get_errno())}, so files outside can be read and written")
    try:
        for paths, wanted in ((readable, _READ_FILE | _READ_DIR), (writable, rights & ~_EXECUTE)):
            for path in dict.fromkeys(map(str, paths)):
                _allow(libc, rules, path, wanted & rights)
        if libc.syscall(_RESTRICT_SELF, rules, 0):
            raise _LackingError(
                f"Landlock: {os.strerror(ctypes.get_errno())}, so files outside can be read and written"
            )
    finally:
        os.close(rules)
    lacking = [what for version, what in _LATER.items() if abi < version]
    return f"Landlock {abi}" + (f" (without {', '.join(lacking)}, which later kernels have)" if lacking else "")


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    """Add a file or a folder with all below it to what may be opened; nothing where there is none."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


# -- system calls


def _filter_calls(libc: ctypes.CDLL, wanted: bool) -> str:
    machine = _MACHINES.get(platform.machine())
    if not wanted or machine is None or sys.maxsize < 2**32:
        raise _LackingError(
            f"seccomp: not used on {platform.machine()}, so the network and other programs can be reached"
        )
    program = b"".join(_filter(machine))
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HxxxxxxQ" if struct.calcsize("P") == 8 else "@HP", len(program) // 8, ctypes.addressof(buffer))
    if libc.syscall(machine.seccomp, _SET_MODE_FILTER, _ALL_THREADS, head):
        reason = os.strerror(ctypes.get_errno())
        raise _LackingError(f"seccomp: {reason}, so the network and other programs can be reached")
    return f"seccomp ({sum(map(len, _CALLS.values()))} system calls end the process)"


def _filter(machine: _Machine) -> Iterator[bytes]:
    """Return the filter's instructions: what is in the table ends the process, and so does any other architecture's."""

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    yield instruction(_LOAD, _ARCHITECTURE)
    yield instruction(_IF_EQUAL, machine.audit, 1, 0)
    yield instruction(_RETURN, _KILL)
    yield instruction(_LOAD, _NUMBER)
    if machine.column == 0:
        yield instruction(_IF_AT_LEAST, _X32, 0, 1)
        yield instruction(_RETURN, _KILL)
    for calls in _CALLS.values():
        for numbers in calls.values():
            if (number := numbers[machine.column]) is not None:
                yield instruction(_IF_EQUAL, number, 0, 1)
                yield instruction(_RETURN, _KILL)
    # its flags lie where a filter cannot look: the C library then takes clone
    yield instruction(_IF_EQUAL, _CLONE3, 0, 1)
    yield instruction(_RETURN, _FAIL | _NO_SUCH_CALL)
    yield instruction(_IF_EQUAL, machine.clone, 0, 3)
    yield instruction(_LOAD, _FIRST_ARGUMENT)
    yield instruction(_IF_ANY_BIT, _NEW_THREAD, 1, 0)
    yield instruction(_RETURN, _KILL)
    yield instruction(_LOAD, _NUMBER)
    # a signal to itself is how abort() ends
    yield instruction(_IF_EQUAL, machine.kill, 1, 0)
    yield instruction(_IF_EQUAL, machine.tgkill, 0, 3)
    yield instruction(_LOAD, _FIRST_ARGUMENT)
    yield instruction(_IF_EQUAL, os.getpid(), 1, 0)
    yield instruction(_RETURN, _KILL)
    yield instruction(_RETURN, _ALLOW)
