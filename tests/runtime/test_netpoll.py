"""Gs that wait for file descriptors."""

import contextlib
import errno
import math
import os
import socket
import sys
import tempfile
import threading

import pytest

import dgmp
from dgmp import _core
from tests.helpers import eventually


@pytest.fixture(scope="module")
def node():
    """The embedded runtime, for all tests that need none of their own."""
    from dgmp.api import runtime

    dgmp.go(int).result()
    yield runtime._default
    runtime._default.close(cancel=True)


def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


def read_one(fd):
    dgmp.wait_readable(fd)
    return os.read(fd, 1)


def one_m(fn, *args):
    """fn's result, as a G of a runtime in which every G shares one process, and its descriptors."""
    with dgmp.Runtime(procs=1, max_ms=1) as rt:
        return rt.go(fn, *args).result(30)


def until_waiting(n):
    """In a G: n Gs of this M wait for descriptors."""
    from dgmp.api import runtime

    while runtime._member.m.polled < n:
        dgmp.sleep(0.001)


# ---------------------------------------------------------------- readiness
def both_ways():
    a, b = pair()
    with a, b:
        dgmp.wait_writable(a)
        reader = dgmp.go(read_one, b.fileno())
        until_waiting(1)
        assert not reader.done()
        a.send(b"x")
        assert reader.result(20) == b"x"
        filled = 0
        try:
            while True:
                filled += a.send(b"x" * 65536)
        except BlockingIOError:
            pass
        writer = dgmp.go(dgmp.wait_writable, a.fileno())
        until_waiting(1)
        assert not writer.done()
        while filled:
            filled -= len(b.recv(1 << 20))
        writer.result(20)
    return True


def test_readable_and_writable_in_gs():
    assert one_m(both_ways)


def test_a_waiting_g_parks_and_its_m_goes_on():
    assert one_m(others_run_meanwhile) == list(range(50))


def others_run_meanwhile():
    a, b = pair()
    with a, b:
        reader = dgmp.go(read_one, a.fileno())
        done = dgmp.gather(*[dgmp.go(int, i) for i in range(50)])
        b.send(b"x")
        reader.result(20)
    return done


def wake_from_another_thread():
    a, b = pair()
    with a, b:
        thread = threading.Timer(0.05, b.send, [b"x"])
        thread.start()
        dgmp.wait_readable(a)  # nothing else runs: the M is parked without a P
        thread.join()
        return a.recv(1)


def test_a_parked_m_wakes(node):
    assert one_m(wake_from_another_thread) == b"x"
    assert dgmp.go(wake_from_another_thread).result(20) == b"x"


def many_on_one_descriptor(n):
    a, b = pair()
    with a, b:
        readers = [dgmp.go(dgmp.wait_readable, a.fileno()) for _ in range(n)]
        writers = [dgmp.go(dgmp.wait_writable, a.fileno()) for _ in range(n)]
        dgmp.gather(*writers)
        until_waiting(n)
        assert not any(f.done() for f in readers)
        b.send(b"x")
        dgmp.gather(*readers)
    return True


def test_several_gs_wait_for_one_descriptor():
    assert one_m(many_on_one_descriptor, 20)


def hung_up():
    a, b = pair()
    f = dgmp.go(dgmp.wait_readable, a.fileno())
    until_waiting(1)
    b.close()
    f.result(20)
    with a:
        return a.recv(1)


def test_the_end_is_readable():
    assert one_m(hung_up) == b""


def regular_file():
    with tempfile.TemporaryFile() as file:
        dgmp.wait_readable(file)
        dgmp.wait_writable(file, 0)
    return True


def test_a_regular_file_is_ready_at_once(node):
    assert regular_file() and dgmp.go(regular_file).result(20)


def thousand_pairs(n):
    pairs = [pair() for _ in range(n)]
    readers = [dgmp.go(read_one, a.fileno()) for a, _ in pairs]
    until_waiting(n)
    for _, b in pairs:
        b.send(b"x")
    got = dgmp.gather(*readers)
    for a, b in pairs:
        a.close(), b.close()
    return got


def test_many_descriptors():
    assert one_m(thousand_pairs, 200) == [b"x"] * 200


def ping(sock, n):
    for _ in range(n):
        dgmp.wait_readable(sock)
        sock.send(sock.recv(1))


def ping_pong(n):
    a, b = pair()
    with a, b:
        a.send(b"x")
        thread = threading.Thread(target=ping, args=(a, n - 1))  # outside of Gs
        thread.start()
        ping(b, n)
        thread.join()
        return a.recv(1)


def test_ping_pong_loses_no_event(node):
    assert dgmp.go(ping_pong, 2000).result(60) == b"x"


# ---------------------------------------------------------------- time-outs and errors
def times_out():
    a, b = pair()
    with a, b:
        for timeout in (0.02, 0, -1):
            with pytest.raises(TimeoutError, match="readable within"):
                dgmp.wait_readable(a, timeout)
        dgmp.wait_writable(a, 0.5)
        b.send(b"x")
        dgmp.wait_readable(a, math.inf)
    return True


def test_timeouts(node):
    assert times_out() and dgmp.go(times_out).result(20)


def bad_descriptors():
    a, b = pair()
    dgmp.wait_writable(a)
    number = a.fileno()
    a.close(), b.close()
    with pytest.raises(OSError) as e:
        dgmp.wait_readable(number)
    assert e.value.errno == errno.EBADF
    for fd in ("x", None, 1.5):
        with pytest.raises(TypeError, match="file descriptor"):
            dgmp.wait_readable(fd)
    with pytest.raises(ValueError):
        dgmp.wait_writable(-1)
    with pytest.raises(TypeError, match="timeout"):
        dgmp.wait_readable(0, "1")
    return True


def test_bad_descriptors(node):
    assert bad_descriptors() and dgmp.go(bad_descriptors).result(20)


def errno_of(fd):
    try:
        dgmp.wait_readable(fd)
    except OSError as e:
        return e.errno
    return 0


def closed_while_waited_for():
    a, b = pair()
    with b:
        f = dgmp.go(errno_of, a.fileno())
        until_waiting(1)
        a.close()
        return f.result(20)


def test_a_descriptor_closed_meanwhile():
    assert one_m(closed_while_waited_for) == errno.EBADF


def closed_and_used_again():
    a, b = pair()
    number = a.fileno()
    old = dgmp.go(errno_of, number)
    until_waiting(1)
    a.close(), b.close()
    c, d = pair()
    with c, d:
        if c.fileno() != number:
            os.dup2(c.fileno(), number)
        new = dgmp.go(read_one, number)
        until_waiting(1)
        d.send(b"x")
        return old.result(20), new.result(20)


def test_a_number_that_names_another_file():
    assert one_m(closed_and_used_again) == (errno.EBADF, b"x")


def waits_at_every_depth():
    a, b = pair()
    results = []

    def deeper(n):
        try:
            dgmp.wait_readable(a, 0.0001)
        except (TimeoutError, RecursionError) as e:
            results.append(type(e))
        try:
            deeper(n + 1)
        except RecursionError:
            return

    sys.setrecursionlimit(260)
    try:
        deeper(0)
    finally:
        sys.setrecursionlimit(1000)
    with a, b:
        b.send(b"x")
        dgmp.wait_readable(a)
    return results.count(TimeoutError)


def test_the_recursion_limit():
    assert one_m(waits_at_every_depth) > 50


def forked_child_cannot_wait():
    a, b = pair()
    with a, b:
        with pytest.raises(TimeoutError):
            dgmp.wait_readable(a, 0.001)
        pid = os.fork()
        if pid == 0:
            try:
                dgmp.wait_readable(a, 5)
            except RuntimeError:
                os._exit(7)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        b.send(b"x")
        dgmp.wait_readable(a)
        return code


def test_a_forked_child_is_no_member(node):
    assert dgmp.go(forked_child_cannot_wait).result(20) == 7


def dies_while_it_waits():
    a, b = pair()
    threading.Timer(0.05, os.kill, [os.getpid(), 9]).start()
    dgmp.wait_readable(a)


def test_a_waiter_whose_m_is_killed(node):
    with pytest.raises(dgmp.WorkerDied):
        dgmp.go(dies_while_it_waits).result(20)


# ---------------------------------------------------------------- the core
@pytest.fixture
def view():
    fd = _core.create(1, 1, 1, 64, 1 << 20)
    view = _core.View(fd, 0)
    os.close(fd)
    view.attach(_core.KIND_M, os.getpid())
    yield view
    view.close(RuntimeError("closed"))


def test_a_wait_in_the_core(view):
    r, w = os.pipe()
    waits = [view.poll_add(r, False, 1 << 63) for _ in range(40)]
    assert len(set(waits)) == 40 and {view.poll_state(i) for i in waits} == {_core.POLL_WAITING}
    assert view.poll_end(waits[0]) == _core.POLL_WAITING
    with pytest.raises(LookupError):
        view.poll_end(waits[0])
    os.write(w, b"x")
    assert eventually(lambda: {view.poll_state(i) for i in waits[1:]} == {_core.POLL_READY})
    assert {view.poll_end(i) for i in waits[1:]} == {_core.POLL_READY}
    os.close(r), os.close(w)


def test_a_poll_that_does_not_block(view):
    assert view.netpoll() == 0
    r, w = os.pipe()
    os.write(w, b"x")
    wait = view.poll_add(r, False, 1 << 63)
    assert view.netpoll() in (0, 1)  # 0: the thread was faster
    assert eventually(lambda: view.poll_state(wait) == _core.POLL_READY)
    view.poll_end(wait)
    os.close(r), os.close(w)


def epolls():
    """Descriptors that name one."""
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventpoll]":
                found.add(number)
    return found


def test_a_closed_epoll_is_made_anew(view):
    r, w = os.pipe()
    before = epolls()
    wait = view.poll_add(r, False, 1 << 63)
    (epoll,) = epolls() - before
    os.close(epoll)
    os.write(w, b"x")
    assert eventually(lambda: view.poll_state(wait) == _core.POLL_READY)
    view.poll_end(wait)

    def works_again():
        try:
            view.poll_end(view.poll_add(r, False, 1 << 63))
            return True
        except OSError:
            return False

    assert eventually(works_again)
    os.close(r), os.close(w)


def test_no_wait_is_left_behind_when_all_are_over(view):
    r, w = os.pipe()
    for _ in range(1000):
        view.poll_end(view.poll_add(r, False, 1 << 63))
    assert view.poll_add(r, False, 1 << 63) < 16
    os.close(r), os.close(w)


# ---------------------------------------------------------------- numbers that are no descriptors
def refused(fd):
    try:
        dgmp.wait_readable(fd)
    except OSError as e:
        return e.errno


def closed_and_ours():
    """The number of the descriptor that was closed is the one that the M's epoll gets."""
    r, w = os.pipe()
    os.close(r)
    try:
        return refused(r)
    finally:
        os.close(w)


def test_a_number_far_beyond_all_descriptors_takes_no_memory_for_those_between():
    assert one_m(refused, 1 << 30) == errno.EBADF


def test_a_closed_descriptor_whose_number_the_runtime_takes_is_not_open():
    assert one_m(closed_and_ours) == errno.EBADF
