"""Noticing that the user's source files are edited while the program runs.

Watched are the folders of the user's modules, those in sys.path, and packages below them, as Ms may import what the program
never does.  Whoever spawns after a pause in which a file can have been written looks first (_core/world.c).  With inotify
that is exact, as an event is there before the write returns; but closing its descriptor takes the kernel 5 to 10 ms, which
a short program would pay at its end.  So in the first second stamps of files and folders are compared instead, unless one is
so young that another edit might leave its stamp as it is.  They are also compared after a pause of a second: not all file
systems have events for what other machines write.

An edit is {path: number of the look that found it}.  Called by api.world.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator

from .._core import View, inotify, inotify_watch
from ..ship import sources

YOUNG_NS = 1_000_000_000  # clocks of file systems are coarse: a few ms
SHORT_NS = PAUSE_NS = 1_000_000_000
OFTEN, RARE = 3, 1000  # stamps are compared after pauses of at least so many times what that takes: without and with inotify
SHORTEST_PAUSE_NS = 10_000
MANY_FILES = 300
MOST_FILES, MOST_FOLDERS = 10_000, 1000
MOST_EDITS = 256
HIGH_FD = 500  # of 1,024 that a process usually may have
ANY = "*"  # stands for every file, when there were more edits than that

EVENT = struct.Struct("iIII")
MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, OVERFLOW, ONLYDIR, ISDIR = 0x400, 0x800, 0x4000, 0x01000000, 0x40000000
MASK = MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ONLYDIR
SOURCE, PACKAGE = ".py", "__init__.py"

Stamp = tuple[int, int, int]


class Edits:
    """The edits since a runtime has booted.

    Args:
        view: the program's; it is told when to look.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.since_boot: dict[str, int] = {}
        self.looks = 0
        self.folders: dict[str, bool] = {}  # real paths; whether packages in it are looked for
        self.stamps: dict[str, Stamp | None] = {}  # of source files, and of the folders
        self.young = False  # one of them has just changed
        self.modules: set[str] = set()  # names of those that have been looked at
        self.places: dict[str, str] = {}  # files of those that cannot be found by their names
        self.path: list[str] = []  # sys.path, when it was looked at,
        self.here = ""  # and the directory
        self.watches: dict[int, str] = {}
        self.fd = -1
        self.started = self.swept = time.monotonic_ns()
        self.sweep_ns = 0  # what that took
        self.patient = True  # inotify has not been tried, or has been lost
        self.find_folders()
        if self.young or len(self.stamps) > MANY_FILES:
            self.start_inotify()
        self.tell_when_to_look()

    def look(self) -> bool:
        """Whether there is an edit, or a module that cannot be found, that was not there at the last look."""
        self.looks += 1
        places = len(self.places)
        now = time.monotonic_ns()
        found = self.read_events() if self.fd >= 0 else set()
        if self.fd < 0 or now - self.swept > self.pause():
            found |= self.sweep()
        self.find_folders()
        if self.patient and (found or self.young or now - self.started > SHORT_NS):
            self.start_inotify()
            found |= self.look_anew()
        self.tell_when_to_look()
        self.since_boot.update(dict.fromkeys(found, self.looks))
        if len(self.since_boot) > MOST_EDITS:
            self.since_boot = {ANY: self.looks}
        return bool(found) or len(self.places) > places

    def tell_when_to_look(self) -> None:
        self.view.world_files(self.fd, self.pause())

    def pause(self) -> int:
        """After how many ns without a G stamps are compared."""
        if self.fd >= 0:
            return max(PAUSE_NS, RARE * self.sweep_ns)
        return max(SHORTEST_PAUSE_NS, OFTEN * self.sweep_ns)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # ------------------------------------------------------------------ what to watch
    def find_folders(self) -> None:
        """Adds the folders of modules, and of entries of sys.path, that are new."""
        if len(sys.modules) != len(self.modules):
            names, self.modules = sys.modules.keys() - self.modules, set(sys.modules)
            for name in names:
                self.add_module(name)
        here = working_directory()
        if sys.path != self.path or here != self.here:
            self.path, self.here = list(sys.path), here
            for entry in self.path:
                folder = os.path.realpath(entry) if isinstance(entry, str) else ""
                if folder and sources.is_local_folder(folder):
                    self.add_folder(folder, True)

    def add_module(self, name: str) -> None:
        module = sys.modules.get(name)
        ours = name.partition(".")[0] in ("dgmp", "__main__")
        path = sources.file_of(module) if module is not None and not ours else None
        if path is not None:
            if not sources.is_found(name, path):
                self.places[name] = os.path.abspath(path)
            for known in sources.names_of(path):
                self.add_folder(os.path.dirname(known), hasattr(module, "__path__"))

    def add_folder(self, folder: str, packages: bool) -> None:
        if self.folders.get(folder, None) in (True, packages) or len(self.folders) >= MOST_FOLDERS:
            return
        self.folders[folder] = packages
        if self.fd >= 0:
            self.watch(folder)
        young = time.time_ns() - YOUNG_NS
        for path in sources_in(folder, MOST_FILES - len(self.stamps)):
            stamp = self.stamps[path] = stamp_of(path)
            self.young |= stamp is not None and stamp[0] > young
        if packages:
            for package in packages_in(folder):
                self.add_folder(package, True)

    # ------------------------------------------------------------------ by stamps
    def sweep(self) -> set[str]:
        """The files that are not as they were."""
        start = time.monotonic_ns()
        changed = any(stamp_of(path) != stamp for path, stamp in self.stamps.items())
        self.swept = time.monotonic_ns()
        self.sweep_ns = self.swept - start
        return self.look_anew() if changed else set()

    def look_anew(self) -> set[str]:
        """The same when folders may have come, gone or been replaced too."""
        before, folders = self.stamps, self.folders
        self.stamps, self.folders = {}, {}
        for folder, packages in folders.items():
            self.add_folder(folder, packages)
        changed = {path for path in before.keys() | self.stamps.keys() if before.get(path) != self.stamps.get(path)}
        return {path for path in changed if path.endswith(SOURCE)}

    # ------------------------------------------------------------------ by inotify
    def start_inotify(self) -> None:
        """From now on by events."""
        self.patient = False
        try:
            self.fd = out_of_the_way(inotify())
        except OSError:  # as many as this user may have
            return
        for folder in list(self.folders):
            self.watch(folder)

    def watch(self, folder: str) -> None:
        try:
            self.watches[inotify_watch(self.fd, folder, MASK)] = folder
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.ENOMEM):  # as many as this user may watch: by stamps again
                self.close()

    def read_events(self) -> set[str]:
        """The files that were edited."""
        found: set[str] = set()
        anew = False
        for watch, mask, name in self.events():
            path = os.path.join(self.watches.get(watch, ""), name)
            if mask & (OVERFLOW | DELETE_SELF | MOVE_SELF):
                anew = True
            elif mask & ISDIR:
                anew |= path in self.folders or os.path.exists(os.path.join(path, PACKAGE))
            elif name.endswith(SOURCE):
                found.add(path)
        for path in found:
            self.stamps[path] = stamp_of(path)
        return found | self.look_anew() if anew else found

    def events(self) -> Iterator[tuple[int, int, str]]:
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return
            except OSError:  # closed by the program, with all others that it knew nothing of
                self.fd, self.patient = -1, True
                self.watches.clear()
                yield -1, OVERFLOW, ""
                return
            at = 0
            while at < len(data):
                watch, mask, _, n = EVENT.unpack_from(data, at)
                at += EVENT.size
                yield watch, mask, os.fsdecode(data[at:at + n].rstrip(b"\0"))
                at += n


def out_of_the_way(fd: int) -> int:
    """The same with a number that no file gets which a program opens when it has closed all that it knew nothing of."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    except OSError:  # there may not be so many
        return fd
    os.close(fd)
    return high


def working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # removed
        return ""


def stamp_of(path: str) -> Stamp | None:
    """Of a file or folder; another one whenever it has changed, but for coarse clocks.  None: it is not there."""
    try:
        at = os.stat(path)
    except OSError:
        return None
    return at.st_ctime_ns, at.st_size, at.st_ino


def sources_in(folder: str, most: int) -> list[str]:
    """The folder, and the source files in it: at most so many."""
    paths = [folder]
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        paths += [item.path for item in items if item.name.endswith(SOURCE)]
    return paths[:max(0, most)]


def packages_in(folder: str) -> Iterator[str]:
    """The packages in a folder."""
    try:
        with os.scandir(folder) as items:
            names = [item.path for item in items if item.name.isidentifier() and item.is_dir()]
    except OSError:
        return
    for path in names:
        if os.path.exists(os.path.join(path, PACKAGE)):
            yield os.path.realpath(path)
