# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share."""

import os
import time

from harness import MIB


def cpu_seconds(pid):
    """All of a process's threads, the kernel's workers for its rings among them."""
    # The clock of another process: clock_getcpuclockid(3), which Python does not have.
    return time.clock_gettime((~pid << 3) | 2)


def random_file(path, size):
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path
