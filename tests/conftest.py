"""Every test leaves nothing: no process, no descriptor, no file in /dev/shm."""

import os

import pytest

import dgmp
from tests.helpers import descendants, eventually


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def leaves_nothing(request):
    if "node" in request.fixturenames:  # the shared runtime lives on
        yield
        return
    before = descriptors()
    yield
    from dgmp.api import quit, runtime

    for left in list(runtime._runtimes):
        left.close(cancel=True)
    assert not quit._views
    assert eventually(lambda: not descendants(os.getpid()), 5), f"processes left: {descendants(os.getpid())}"
    assert eventually(lambda: descriptors() <= before, 2), "descriptors left open"
    assert not [name for name in os.listdir("/dev/shm") if "dgmp" in name]


@pytest.fixture
def rt():
    with dgmp.Runtime(procs=2) as runtime:
        yield runtime
