"""An M's process: from fork to mstart."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from typing import Any

from dgmp import _core
from dgmp._core import KIND_M, View
from dgmp.api import quit
from dgmp.api import runtime as api
from dgmp.api.member import Member
from dgmp.api.output import Output as Shower
from dgmp.coordinator import words
from dgmp.coordinator.server import ALARM_FD, EVENT_FD, OUTPUT_FD, SEGMENT_FD, SHOWER_FD
from dgmp.coordinator.state import FAILED, NO_ROOM
from dgmp.runtime import boot as booting
from dgmp.runtime import locks, loops, preempt, script
from dgmp.runtime.affinity import Affinity
from dgmp.runtime.asyncpreempt import AsyncPreempt
from dgmp.runtime.imports import when_imported
from dgmp.runtime.output import Output
from dgmp.runtime.proc import M
from dgmp.runtime.selector import park_loops
from dgmp.runtime.signals import Signals
from dgmp.runtime.sleeps import park_sleepers
from dgmp.runtime.undo import Changes
from dgmp.runtime.world import Worlds
from dgmp.ship import packets, world

plain_stderr: Any = None


def ignore(signum: int, frame: Any) -> None:
    """SIGINT's handler: not SIG_IGN, as the processes that Gs start would inherit that."""


def die_with_parent(coordinator: int) -> None:
    """SIGKILL for this process when the coordinator's main thread ends.  It is our parent, or is about to be."""
    first = os.getppid()
    deadline = time.monotonic() + 5
    while os.getppid() != coordinator:
        if os.getppid() not in (first, coordinator) or time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.0002)
    _core.when_parent_dies(signal.SIGKILL)
    if os.getppid() != coordinator:
        os._exit(1)


def set_stdio(m: int, stdio: tuple[int, int, int], boot: dict[str, Any]) -> tuple[int | None, int, int]:
    """The client's stdout and stderr; its stdin only for m0 of `dgmp run`, /dev/null otherwise.  Returns copies of them."""
    foreground = m == 0 and boot["foreground"]
    if foreground:
        os.dup2(stdio[0], 0)
        with contextlib.suppress(OSError):
            os.setpgid(0, boot["pgrp"])  # so that a terminal lets it read
    os.dup2(stdio[1], 1)
    os.dup2(stdio[2], 2)
    if not foreground:
        os.close(stdio[0])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    global plain_stderr
    plain_stderr = sys.stderr
    return stdio[0] if foreground else None, stdio[1], stdio[2]


def keep_crashes(m: int, boot: dict[str, Any]) -> list[int]:
    """What faulthandler says as we crash goes to the coordinator, which writes it to the client's stderr.  The descriptors."""
    if boot["crashes"] < 0:
        return []
    fd = words.place_for(m, boot["crashes"]) if boot["faulthandler"] else None
    os.close(boot["crashes"])
    if fd is None:
        return []
    faulthandler.enable(fd)
    return [fd]


def sender_to_clients(worker: M, path: str, wait: Callable[[int], object]) -> Callable[[int, bytes], None]:
    """As sender, but each message goes to the client for which the G works that sends it."""
    from dgmp.runtime.clients import Channels

    channels = Channels(worker, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, OUTPUT_FD), path, wait)

    def send(what: int, data: bytes) -> None:
        with contextlib.suppress(OSError):
            channels.send(packets.split(what, data))
        worker.view.sent()

    return send


def sender(view: View) -> Callable[[int, bytes], None]:
    """Sends messages to the client, which counts on each that is sent before a G completes."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, OUTPUT_FD)

    def send(what: int, data: bytes) -> None:
        try:
            for packet in packets.split(what, data):
                channel.send(packet, socket.MSG_NOSIGNAL)
        except OSError:  # the client is gone, or user code has closed our descriptors
            return
        view.sent()

    return send


def join_client(worker: M, member: Member, signals: Signals, boot: dict[str, Any]) -> None:
    """What Gs print and log goes to the client from here on."""
    if boot["listen"]:
        send = sender_to_clients(worker, boot["listen"][0], lambda fd: member.wait_fd(fd, True, None))
    else:
        send = sender(worker.view)
    Output(worker, send, signals.run, boot["streams"])

    def logging_imported(module: types.ModuleType) -> None:
        with contextlib.suppress(Exception):  # it may be a module of the user's own
            from dgmp.runtime.logs import Levels

            Levels(worker, send)

    when_imported("logging", logging_imported)


def be_the_client(member: Member) -> None:
    """m0 of `dgmp run`, where the program runs: others join it."""
    ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd) for fd in (SHOWER_FD, OUTPUT_FD))
    output = Shower((ours, theirs))
    output.waits = member.view.own_threads
    output.start()
    script.show_output = output.show
    member.be_the_client(output)
    member.tell_of_changes()


def forget_source() -> None:
    """3.13 remembers the lines of `python -c`, here of what started the coordinator: tracebacks showed them as the user's."""
    if "linecache" in sys.modules:
        sys.modules["linecache"].cache.pop("<string>", None)


def map_segment(m: int) -> View:
    try:
        return View(SEGMENT_FD, m, EVENT_FD, ALARM_FD)
    except OSError:  # no room, for all Ms alike: the coordinator says so, once
        os._exit(NO_ROOM)


def m_main(m: int, coordinator: int, stdio: tuple[int, int, int], boot: dict[str, Any]) -> None:
    """Becomes M m and schedules until the node ends; never returns."""
    try:
        die_with_parent(coordinator)
        view = map_segment(m)
        if not view.attach(KIND_M, os.getpid()):
            os._exit(0)
        kept = set_stdio(m, stdio, boot)
        world.install(boot)
        crashes = keep_crashes(m, boot)
        sys.modules["__main__"] = types.ModuleType("__main__")
        forget_source()
        affinity = None
        if boot["binding"] != "never":
            affinity = Affinity(view, boot["cores"], boot["binding"] == "forced")
            affinity.watch_process_starts()
        if boot["max_tasks"] and not (m == 0 and boot["foreground"]):
            view.retire_after(boot["max_tasks"])
        worker = M(view, worlds := Worlds(view, boot["filters"]), affinity)
        ours = [SEGMENT_FD, EVENT_FD, ALARM_FD, OUTPUT_FD, worlds.home, *([SHOWER_FD] if m == 0 and boot["foreground"] else [])]
        Changes(worker, ours + crashes, kept)
        preemption = preempt.Preemption(worker)
        preemption.preempt = AsyncPreempt(worker).preempt
        preemption.install()
        if m == 0 and boot["foreground"]:
            quit.install(view)
        signals = Signals(worker, once=m == 0 and boot["foreground"])
        signals.install()
        member = Member(view, worker, signals)
        locks.park_gs(worker, member.park)
        loops.keep_apart(worker)
        park_loops(worker, member.park)
        park_sleepers(worker, member.park)
        if m == 0 and boot["foreground"]:
            be_the_client(member)
        else:
            join_client(worker, member, signals, boot)
        api.become_member(member)
        booting.mstart_trace(m)
        worker.mstart()
    except SystemExit:
        pass
    except BaseException:
        sys.stderr = plain_stderr  # what Gs have may need what has failed
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(FAILED)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)
