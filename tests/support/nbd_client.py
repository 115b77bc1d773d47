# SPDX-License-Identifier: Apache-2.0
"""A guest, played by libnbd; tests that need one are skipped where its Python module is missing."""

import pytest

nbd = pytest.importorskip("nbd")


def connect(server, *contexts, export="d"):
    """With these metadata contexts, which need not be granted."""
    handle = nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(server.uri(export))
    return handle


def write(server, offset, data, export="d"):
    """One write of a client that comes and leaves."""
    handle = connect(server, export=export)
    handle.pwrite(data, offset)
    handle.shutdown()
