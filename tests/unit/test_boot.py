"""osinit and its inputs."""

import os

import pytest

import dgmp
from dgmp.runtime import boot
from dgmp.runtime.proc import steal_order


def test_osinit_counts_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert boot.osinit() == 1
    finally:
        os.sched_setaffinity(0, before)


def quota(tmp_path, files, groups):
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(groups)
    return boot.cgroup_quota(tmp_path / "fs", tmp_path / "self")


def test_cgroup_v2_tightest_ancestor(tmp_path):
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}
    assert quota(tmp_path, files, "0::/a/b\n") == 1.5


def test_cgroup_v1(tmp_path):
    files = {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}
    assert quota(tmp_path, files, "4:cpu,cpuacct:/x\n3:memory:/x\n") == 0.5


def test_no_quota(tmp_path):
    assert quota(tmp_path, {"cpu.max": "max 100000"}, "0::/\n") is None


@pytest.mark.parametrize("n", range(1, 65))
def test_steal_order_visits_all_once(n):
    steps = steal_order(n)
    assert n < 3 or len(steps) >= 2
    for step in steps:
        for start in range(n):
            assert sorted((start + step * i) % n for i in range(n)) == list(range(n))


@pytest.mark.parametrize("procs", [0, -1, 100_000])
def test_procs_out_of_range(procs):
    with pytest.raises(ValueError, match="procs must be between 1 and"):
        dgmp.Runtime(procs=procs)


def test_procs_from_the_environment(monkeypatch):
    monkeypatch.setenv("DGMP_PROCS", "3")
    with dgmp.Runtime() as rt:
        assert rt.stats()["gomaxprocs"] == 3


@pytest.mark.parametrize("text", ["many", "0", "-1", "1025", "1.5", "9" * 5000])
def test_bad_procs_in_the_environment(monkeypatch, text):
    monkeypatch.setenv("DGMP_PROCS", text)
    with pytest.raises(ValueError, match=f"^DGMP_PROCS must be a whole number between 1 and 1024, not '{text[:40]}'$"):
        dgmp.Runtime()


def test_debug_options_may_have_blanks(monkeypatch):
    monkeypatch.setenv("DGMP_DEBUG", " boot , schedtrace = 1000 ,x")
    assert (boot.debug("boot"), boot.debug("x"), boot.debug("y"), boot.schedtrace_ms()) == ("", "", None, 1000)


@pytest.mark.parametrize("text", ["", "0", "-5", "often", "1.5", "86400001", "9" * 5000])
def test_bad_schedtrace(monkeypatch, text):
    monkeypatch.setenv("DGMP_DEBUG", f"schedtrace={text}")
    with pytest.raises(ValueError, match=f"^schedtrace must be a whole number of milliseconds .*, not '{text[:40]}'$"):
        dgmp.Runtime()
