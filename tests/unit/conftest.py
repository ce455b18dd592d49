"""What the unit tests of ship share."""

import os

import pytest

from dgmp._core import View, create
from dgmp.ship import closure


@pytest.fixture
def coder():
    fd = create(1, 1, 2, 4096, 1 << 20)
    view = View(fd, 1)
    yield closure.Encoder(view), closure.Decoder(view)
    os.close(fd)
