# SPDX-License-Identifier: Apache-2.0
"""The NBD protocol by hand, for what no decent client would send. The numbers are those of the
specification."""

import socket
import struct

OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
STRUCTURED_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_MAGIC = 0x6E8A278C

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_CONTEXT, SET_CONTEXT, EXTENDED = (
    1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
ACK, SERVER, INFO_REPLY, CONTEXT_REPLY = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_UNKNOWN, ERR_TOO_BIG, ERR_EXTENDED_REQUIRED = (
    (1 << 31) | code for code in (1, 2, 3, 6, 9, 10))

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD = (1 << bit for bit in range(6))
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP = 1, 5, 22, 28, 75, 95
CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_EXTENDED_STATUS, CHUNK_ERROR = 1, 2, 5, 6, (1 << 15) | 1
DONE = 1


class Wire:
    """One connection; in the middle of nowhere until one of the methods below is called."""

    def __init__(self, server, tcp=False, flags=3, limit=20):
        if tcp:
            self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=limit)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(limit)
            self.socket.connect(str(server.socket))
        self.structured = False
        self.extended = False
        self.cookie = 0
        self.offsets = {}  # of requests with extended headers, which their replies repeat
        self.greeting = self.receive(18)
        assert self.greeting[:16] == b"NBDMAGICIHAVEOPT"
        if flags is not None:
            self.send(struct.pack(">I", flags))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, count):
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            part = self.socket.recv_into(view[got:])
            if part == 0:
                raise EOFError(f"{got} of {count} bytes came")
            got += part
        return bytes(data)

    def closed(self):
        """Waits for the server to close, and says whether it did so without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    # --- Handshake ---

    def option(self, code, data=b"", length=None):
        self.send(struct.pack(">QII", OPTION_MAGIC, code, len(data) if length is None else length)
                  + data)

    def option_reply(self):
        magic, code, kind, length = struct.unpack(">QIII", self.receive(20))
        assert magic == OPTION_REPLY_MAGIC
        return code, kind, self.receive(length)

    def ask(self, code, data=b"", length=None):
        """Sends an option; the kind of its last reply, and the replies before that."""
        self.option(code, data, length)
        before = []
        while True:
            answered, kind, content = self.option_reply()
            assert answered == code
            if kind == ACK or kind & (1 << 31):
                return kind, before
            before.append((kind, content))

    def list_exports(self):
        kind, replies = self.ask(LIST)
        assert kind == ACK and all(each == SERVER for each, _ in replies)
        # A name with its length; a description may follow.
        names = [content[4:4 + struct.unpack(">I", content[:4])[0]] for _, content in replies]
        return sorted(name.decode() for name in names)

    def in_step(self, *names):
        """Whether an ordinary option is still understood, and answered in its turn."""
        return self.list_exports() == sorted(names)

    def negotiate_structured(self):
        assert self.ask(STRUCTURED) == (ACK, [])
        self.structured = True

    def negotiate_extended(self):
        assert self.ask(EXTENDED) == (ACK, [])
        self.structured = self.extended = True

    def set_contexts(self, name, *queries):
        """(kind of the last reply, {id: context})."""
        kind, replies = self.ask(SET_CONTEXT, context_data(name, *queries))
        return kind, [(struct.unpack(">I", content[:4])[0], content[4:].decode())
                      for _, content in replies]

    def go(self, name=""):
        """Enters transmission: (size, transmission flags)."""
        kind, replies = self.ask(GO, go_data(name))
        assert kind == ACK
        for _, content in replies:
            if struct.unpack(">H", content[:2])[0] == 0:
                return struct.unpack(">QH", content[2:])
        raise AssertionError("no NBD_INFO_EXPORT")

    # --- Transmission ---

    def request(self, command, offset=0, length=0, flags=0, data=b"", cookie=None):
        if cookie is None:
            self.cookie += 1
            cookie = self.cookie
        if self.extended:
            flags |= PAYLOAD if data else 0
            self.offsets[cookie] = offset
            self.send(extended_header(command, offset, length, flags, cookie) + data)
        else:
            self.send(header(command, offset, length, flags, cookie) + data)
        return cookie

    def simple_reply(self):
        """(error, cookie)."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert magic == SIMPLE_MAGIC, f"{magic:#x}"
        return error, cookie

    def chunk(self):
        """(flags, type, cookie, payload)."""
        if self.extended:
            magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQQ", self.receive(32))
            assert magic == EXTENDED_MAGIC, f"{magic:#x}"
            assert offset == self.offsets[cookie]
            return flags, kind, cookie, self.receive(length)
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.receive(20))
        assert magic == STRUCTURED_MAGIC, f"{magic:#x}"
        return flags, kind, cookie, self.receive(length)

    def any_reply(self):
        """(error, cookie) of a reply that carries no data, in whichever form."""
        if not self.extended and self.socket.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL) == struct.pack(
                ">I", SIMPLE_MAGIC):
            return self.simple_reply()
        flags, kind, cookie, payload = self.chunk()
        assert flags & DONE and kind in (0, CHUNK_ERROR)
        return (struct.unpack(">I", payload[:4])[0] if kind else 0), cookie

    def do(self, command, offset=0, length=0, flags=0, data=b""):
        """A request that brings no data: its error."""
        cookie = self.request(command, offset, length, flags, data)
        error, answered = self.any_reply()
        assert answered == cookie
        return error

    def write(self, offset, data, flags=0):
        return self.do(WRITE, offset, len(data), flags, data)

    def chunks(self, cookie):
        result = []
        while True:
            flags, kind, answered, payload = self.chunk()
            assert answered == cookie
            result.append((kind, payload))
            if flags & DONE:
                return result

    def read(self, offset, length, flags=0):
        """The data, or the error as a number."""
        cookie = self.request(READ, offset, length, flags)
        return self.read_reply(cookie, offset, length)

    def read_reply(self, cookie, offset, length):
        if not self.structured:
            error, answered = self.simple_reply()
            assert answered == cookie
            return error or self.receive(length)
        data, covered = bytearray(length), 0
        for kind, payload in self.chunks(cookie):
            if kind == CHUNK_ERROR:
                return struct.unpack(">I", payload[:4])[0]
            at = struct.unpack(">Q", payload[:8])[0] - offset
            if kind == CHUNK_HOLE:
                covered += struct.unpack(">I", payload[8:])[0]
            elif kind == CHUNK_DATA:
                data[at:at + len(payload) - 8] = payload[8:]
                covered += len(payload) - 8
        assert covered == length and len(data) == length
        return bytes(data)

    def block_status(self, offset, length, flags=0):
        """{context id: [(length, status)]}, or the error as a number."""
        return self.block_status_reply(self.request(BLOCK_STATUS, offset, length, flags))

    def block_status_of(self, contexts, offset, length):
        """The same for some contexts only, by their ids."""
        payload = struct.pack(f">Q{len(contexts)}I", length, *contexts)
        return self.block_status_reply(
            self.request(BLOCK_STATUS, offset, len(payload), data=payload))

    def block_status_reply(self, cookie):
        if not self.extended and self.socket.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL) == struct.pack(
                ">I", SIMPLE_MAGIC):
            return self.simple_reply()[0]
        result = {}
        for kind, payload in self.chunks(cookie):
            if kind == CHUNK_ERROR:
                return struct.unpack(">I", payload[:4])[0]
            if self.extended:
                assert kind == CHUNK_EXTENDED_STATUS
                context, count = struct.unpack(">II", payload[:8])
                assert len(payload) == 8 + 16 * count
                numbers = struct.unpack(f">{2 * count}Q", payload[8:])
            else:
                assert kind == CHUNK_STATUS
                context, *numbers = struct.unpack(f">{len(payload) // 4}I", payload)
            assert context not in result
            result[context] = list(zip(numbers[0::2], numbers[1::2]))
        return result


def string(text):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">I", len(text)) + text


def go_data(name, *wanted):
    return string(name) + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)


def context_data(name, *queries):
    return string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries))


def extended_header(command, offset=0, length=0, flags=0, cookie=0):
    return struct.pack(">IHHQQQ", EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length)


def header(command, offset=0, length=0, flags=0, cookie=0):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length)
