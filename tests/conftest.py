# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

from harness import World  # noqa: E402

MEMORY = "/dev/shm"


@pytest.fixture
def world(tmp_path):
    if not os.access(MEMORY, os.W_OK):
        yield World(tmp_path)
        return
    with tempfile.TemporaryDirectory(prefix="nbd-mirror-test-", dir=MEMORY) as quick:
        yield World(tmp_path, quick)
        # For whoever looks for a cause: pytest keeps its directories for a while.
        for log in pathlib.Path(quick).glob("*.log"):
            shutil.copy(log, tmp_path)
