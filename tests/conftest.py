# SPDX-License-Identifier: Apache-2.0
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

from harness import World  # noqa: E402


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)
