# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture
def server(world, disk):
    """Serves the module's own `disk`, as the export d."""
    with world.server(f"d={disk}") as running:
        yield running
