"""Every test leaves nothing: no process, no descriptor, no file in /dev/shm."""

import os

import hypothesis
import pytest

import dgmp
from tests.helpers import childless, descendants, eventually

hypothesis.settings.register_profile("dgmp", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("dgmp")  # how fast this machine is proves nothing
FAILED = pytest.StashKey[bool]()


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
    assert eventually(childless), f"processes left: {descendants(os.getpid())}"
    assert eventually(lambda: descriptors() <= before), "descriptors left open"
    assert not [name for name in os.listdir("/dev/shm") if "dgmp" in name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def rt(request):
    """Its Gs end with the test, unless that has failed: then they may wait for what it was about to do."""
    runtime = dgmp.Runtime(procs=2)
    yield runtime
    runtime.close(cancel=request.node.stash[FAILED])
