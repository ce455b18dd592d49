"""Noticing that the user's source files are edited while the program runs.

Watched are the folders of the user's modules, those in sys.path, and packages below them, as Ms may import what the program
never does.  Whoever spawns after a pause in which a file can have been written looks first (_core/world.c).  With inotify
that is exact, as an event is there before the write returns; but closing its descriptor takes the kernel 5 to 10 ms, which
a short program would pay at its end.  So in the first second the files' stamps are compared instead, unless a file is so
young that another edit might leave its stamp as it is.

An edit is {path: number of the look that found it}.  Called by api.world.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
from collections.abc import Iterator

from .._core import View, inotify, inotify_watch
from ..ship import sources

YOUNG_NS = 1_000_000_000  # clocks of file systems are coarse: a few ms
SHORT_SECONDS = 1.0
SWEEP_PAUSES = 3  # files are compared after pauses of at least so many times what that takes
SHORTEST_PAUSE_NS = 10_000
MOST_FILES, MOST_FOLDERS = 10_000, 1000
MOST_EDITS = 256
ANY = "*"  # stands for every file, when there were more edits than that

EVENT = struct.Struct("iIII")
MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, OVERFLOW, ONLYDIR, ISDIR = 0x400, 0x800, 0x4000, 0x01000000, 0x40000000
MASK = MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ONLYDIR
CACHE = "__pycache__"

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
        self.files: dict[str, Stamp] = {}
        self.modules: set[str] = set()  # names of those that have been looked at
        self.path: list[str] = []  # sys.path, when it was looked at,
        self.here = ""  # and the directory
        self.watches: dict[int, str] = {}
        self.fd = -1
        self.started = time.monotonic()
        self.sweep_ns = 0
        self.patient = True  # inotify has not been tried
        self.find_folders()
        self.tell_when_to_look()

    def look(self) -> bool:
        """Whether there is an edit that was not there at the last look."""
        self.looks += 1
        found = self.read_events() if self.fd >= 0 else self.sweep()
        self.find_folders()
        if self.patient and (found or time.monotonic() - self.started > SHORT_SECONDS):
            found |= self.start_inotify()
        self.tell_when_to_look()
        self.since_boot.update(dict.fromkeys(found, self.looks))
        if len(self.since_boot) > MOST_EDITS:
            self.since_boot = {ANY: self.looks}
        return bool(found)

    def tell_when_to_look(self) -> None:
        self.view.world_files(self.fd, max(SHORTEST_PAUSE_NS, SWEEP_PAUSES * self.sweep_ns))

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
        path = sources.file_of(module) if module is not None and name.partition(".")[0] != "dgmp" else None
        if path is not None:
            for known in sources.names_of(path):
                self.add_folder(os.path.dirname(known), hasattr(module, "__path__"))

    def add_folder(self, folder: str, packages: bool) -> None:
        if self.folders.get(folder, None) in (True, packages) or len(self.folders) >= MOST_FOLDERS:
            return
        self.folders[folder] = packages
        if self.fd >= 0:
            self.watch(folder)
        newest = 0
        for path, stamp in self.list(folder):
            self.files[path] = stamp
            newest = max(newest, stamp[0])
        if self.patient and newest > time.time_ns() - YOUNG_NS:
            self.start_inotify()
        if packages:
            for package in packages_in(folder):
                self.add_folder(package, True)

    def list(self, folder: str) -> Iterator[tuple[str, Stamp]]:
        """Its source files."""
        try:
            with os.scandir(folder) as items:
                for item in items:
                    if item.name.endswith(".py") and len(self.files) < MOST_FILES:
                        stamp = stamp_of(item.path)
                        if stamp is not None:
                            yield item.path, stamp
        except OSError:
            return

    # ------------------------------------------------------------------ by stamps
    def sweep(self) -> set[str]:
        """The files that are not as they were."""
        start = time.monotonic_ns()
        found = {path for path, stamp in self.files.items() if stamp_of(path) != stamp}
        for path in found:
            self.note(path)
        self.sweep_ns = time.monotonic_ns() - start
        return found

    def note(self, path: str) -> None:
        stamp = stamp_of(path)
        if stamp is None:
            self.files.pop(path, None)
        else:
            self.files[path] = stamp

    # ------------------------------------------------------------------ by inotify
    def start_inotify(self) -> set[str]:
        """From now on by events.  The files that were edited until then."""
        self.patient = False
        try:
            self.fd = inotify()
        except OSError:  # as many as this user may have
            return set()
        for folder in list(self.folders):
            self.watch(folder)
        return self.sweep()

    def watch(self, folder: str) -> None:
        try:
            self.watches[inotify_watch(self.fd, folder, MASK)] = folder
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.ENOMEM):  # as many as this user may watch: by stamps again
                self.close()

    def read_events(self) -> set[str]:
        """The files that were edited."""
        found: set[str] = set()
        lost = False
        for watch, mask, name in self.events():
            if mask & (OVERFLOW | DELETE_SELF | MOVE_SELF) or mask & ISDIR and name != CACHE and not mask & MODIFY:
                lost = True
            elif name.endswith(".py") and watch in self.watches:
                found.add(os.path.join(self.watches[watch], name))
        for path in found:
            self.note(path)
        return found | self.look_anew() if lost else found

    def events(self) -> Iterator[tuple[int, int, str]]:
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                watch, mask, _, n = EVENT.unpack_from(data, at)
                at += EVENT.size
                yield watch, mask, os.fsdecode(data[at:at + n].rstrip(b"\0"))
                at += n

    def look_anew(self) -> set[str]:
        """Folders have come, gone or been replaced, or events been lost."""
        before = self.files
        self.files, self.folders, folders = {}, {}, self.folders
        for folder, packages in folders.items():
            if os.path.isdir(folder):
                self.add_folder(folder, packages)
        return {path for path in before.keys() | self.files.keys() if before.get(path) != self.files.get(path)}


def working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # removed
        return ""


def stamp_of(path: str) -> Stamp | None:
    """Changes whenever the file does, but for coarse clocks.  None: it is not there."""
    try:
        at = os.stat(path)
    except OSError:
        return None
    return at.st_ctime_ns, at.st_size, at.st_ino


def packages_in(folder: str) -> Iterator[str]:
    """The folders in it that hold an __init__.py."""
    try:
        with os.scandir(folder) as items:
            names = [item.path for item in items if item.name.isidentifier() and item.is_dir()]
    except OSError:
        return
    for path in names:
        if os.path.exists(os.path.join(path, "__init__.py")):
            yield os.path.realpath(path)
