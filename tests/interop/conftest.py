# SPDX-License-Identifier: Apache-2.0
import pytest

from wire import Wire


@pytest.fixture
def server(world, disk):
    """Serves the module's own `disk`, as the export d."""
    with world.server(f"d={disk}") as running:
        yield running


@pytest.fixture
def raw(server):
    """A connection in its handshake."""
    with Wire(server) as connection:
        yield connection


@pytest.fixture
def plain(raw):
    """In transmission, with what `raw` has agreed on: by itself, simple replies."""
    raw.go("d")
    return raw
