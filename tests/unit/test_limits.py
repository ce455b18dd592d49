"""What limits mean, and what the coordinator does about memory: no process."""

import os

import pytest

from dgmp._core import KIND_CLIENT, KIND_M, View, create
from dgmp.coordinator import memory
from dgmp.coordinator.memory import Watch
from dgmp.runtime import limits

MB = 1_000_000


@pytest.mark.parametrize("value, expected", [
    (10**9, (10**9, 15 * 10**8)), ("2GB", (2 * 10**9, 3 * 10**9)), ("512 MiB", (512 << 20, 768 << 20)),
    ("1.5g", (15 * 10**8, 2_250_000_000)), ("100000000", (10**8, 15 * 10**7)), (("1GB", "1.2GB"), (10**9, 12 * 10**8)),
    ((10**9, 10**9), (10**9, 10**9)), (1e9, (10**9, 15 * 10**8)), ("40000KB", (4 * 10**7, 6 * 10**7)),
])
def test_amounts_of_memory(value, expected):
    assert limits.memory(value) == expected


def test_a_fraction_is_of_what_there_is():
    soft, hard = limits.memory(0.5)
    assert soft == limits.memory_size() // 2 and hard == int(1.5 * soft)
    assert limits.memory(1.0)[0] == limits.memory_size()


def test_the_groups_limit_counts(tmp_path):
    (tmp_path / "self").write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1000000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    assert limits.memory_size(str(tmp_path), str(tmp_path / "self")) == 1_000_000
    (tmp_path / "self").write_text("4:cpu,memory:/a\n")
    (tmp_path / "memory" / "a").mkdir(parents=True)
    (tmp_path / "memory" / "a" / "memory.limit_in_bytes").write_text("5000000\n")
    assert limits.memory_size(str(tmp_path), str(tmp_path / "self")) == 5_000_000
    assert limits.memory_size(str(tmp_path), str(tmp_path / "none")) > 1 << 28


@pytest.fixture
def m0():
    fd = create(1, 2, 2, 4096, 1 << 20)
    client, coordinator, m = View(fd, 2), View(fd, 3), View(fd, 0)
    client.attach(KIND_CLIENT, 1)
    coordinator.attach(KIND_CLIENT, 2)
    client.start_m0()
    coordinator.m_started(0, 100)
    assert m.attach(KIND_M, 100) and m.mstart()
    yield client, coordinator, m
    os.close(fd)


class Spawned:
    word = _kind = _state = _then = _data = None


def run(client, m):
    client.spawn(Spawned(), 0, b"x", 3, None)
    return m.claim(m.globrunqget(1), False)


def test_above_the_soft_limit_it_is_asked_to_end(m0):
    client, coordinator, m = m0
    used = {100: 99 * MB}
    watch = Watch(coordinator, 100 * MB, 150 * MB, used.get, lambda pid: used[pid])
    assert watch.look(0, {0: 100}) == [] and not m.retiring
    used[100] = 120 * MB
    assert watch.look(0, {0: 100}) == [] and m.retiring


def test_above_the_hard_one_it_is_killed_if_a_g_runs_or_it_did_not_end(m0):
    client, coordinator, m = m0
    watch = Watch(coordinator, 100 * MB, 150 * MB, lambda pid: 160 * MB, lambda pid: 160 * MB)
    assert watch.look(0, {0: 100}) == [] and m.retiring
    [(dead, why)] = watch.look(0, {0: 100})
    assert dead == 0 and "took 160.0 MB of memory, more than the hard limit of 150.0 MB" in why
    again = Watch(coordinator, 100 * MB, 150 * MB, lambda pid: 160 * MB, lambda pid: 160 * MB)
    assert run(client, m) is not None
    assert len(again.look(0, {0: 100})) == 1


def test_what_it_shares_with_the_zygote_is_not_its_own(m0):
    _, coordinator, m = m0
    asked = []
    watch = Watch(coordinator, 100 * MB, 150 * MB, lambda pid: 110 * MB, lambda pid: asked.append(pid) or 95 * MB)
    for _ in range(5):
        assert watch.look(0, {0: 100}) == []
    assert not m.retiring and asked == [100]  # once
    watch.look(0, {})
    assert not watch.shared


def test_a_process_is_measured():
    before = memory.resident(os.getpid())
    kept = bytearray(os.urandom(1 << 20) * 50)
    assert 45 << 20 < memory.resident(os.getpid()) - before < 60 << 20 and kept
    assert memory.own(os.getpid()) <= memory.resident(os.getpid()) + (1 << 20)
    assert memory.resident(1 << 30) == 0 and memory.own(1 << 30) is None


def test_the_main_g_is_none_of_an_ms_share(m0):
    client, _, m = m0
    m.retire_after(2)
    for expected in (False, False, True):
        word = run(client, m)[-1]
        assert m.complete(word, 0, b"") and m.retiring is expected


def test_few_may_wait():
    """Of Ms that are to end and have Gs left: a quarter of those that there may be beyond procs."""
    fd = create(2, 12, 2, 4096, 1 << 20)
    views = [View(fd, i) for i in range(12)]
    for i in range(12):
        views[0].m_started(i, 100 + i)
    assert [view.retire_wait() for view in views[:5]] == [True, True, False, False, False]
    assert views[0].retire_wait()  # itself it does not count twice
    os.close(fd)
    fd = create(2, 2, 2, 4096, 1 << 20)
    assert not View(fd, 0).retire_wait()
    os.close(fd)
