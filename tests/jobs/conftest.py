"""A daemon of a test's own, with folders that end with it."""

import pytest

from tests.jobs.harness import Node


@pytest.fixture
def here():
    with Node() as node:
        yield node


@pytest.fixture
def client(here):
    here.daemon = here.up()
    return here.client()
