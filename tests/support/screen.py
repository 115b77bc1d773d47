# SPDX-License-Identifier: Apache-2.0
"""A terminal for programs that draw on one: a pseudo-terminal, and the screen that its user sees."""

import codecs
import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios

from harness import wait_for


class Screen:
    """What a program has drawn. It understands what ours may send, and fails at anything else: a
    text of others that reaches a terminal as it is must be noticed."""

    SEQUENCE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")

    def __init__(self, columns, rows):
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.rest = ""
        self.alternate = False
        self.cursor_shown = True
        self.erased = 0  # times
        self.styles = set()  # parameters of all SGR sequences
        self.saved = None
        self.resize(columns, rows)

    def resize(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.erase()
        self.overflows = 0  # since it was erased

    def erase(self):
        self.lines = [[" "] * self.columns for _ in range(self.rows)]
        self.row = self.column = 0

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.lines)

    def feed(self, data):
        text = self.rest + self.decoder.decode(data)
        self.rest = ""
        while text:
            if text[0] != "\x1b":
                self.put(text[0])
                text = text[1:]
                continue
            sequence = self.SEQUENCE.match(text)
            if sequence is None:
                assert re.fullmatch(r"\x1b(\[\??[\d;]*)?", text), f"not expected: {text[:40]!r}"
                self.rest = text
                return
            self.obey(*sequence.groups())
            text = text[sequence.end():]

    def obey(self, private, parameters, final):
        if private:
            assert (parameters, final) in (("1049", "h"), ("1049", "l"), ("25", "h"), ("25", "l"))
            if parameters == "25":
                self.cursor_shown = final == "h"
            elif (final == "h") != self.alternate:
                self.alternate = final == "h"
                other = (self.lines, self.row, self.column)
                self.erase()
                if not self.alternate and self.saved and len(self.saved[0]) == self.rows:
                    self.lines, self.row, self.column = self.saved
                self.saved = other
        elif final == "m":
            self.styles.add(parameters)
        elif final == "H":
            row, column = (parameters or "1;1").split(";")
            self.row, self.column = int(row) - 1, int(column) - 1
        elif final == "K":
            if self.row < self.rows:
                self.lines[self.row][self.column:] = [" "] * (self.columns - self.column)
        else:
            assert (parameters, final) == ("2", "J"), f"not expected: {parameters}{final}"
            self.erase()
            self.overflows = 0
            self.erased += 1

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
            if self.row == self.rows:
                self.lines = self.lines[1:] + [[" "] * self.columns]
                self.row -= 1
        else:
            assert character.isprintable(), f"not expected: {character!r}"
            # A terminal that is written to in its last column may go on in the next line.
            if self.row >= self.rows or self.column + 1 >= self.columns:
                self.overflows += 1
                return
            self.lines[self.row][self.column] = character
            self.column += 1


class TerminalSession:
    """A program at a terminal, which it controls; ended when its `with` block is left."""

    def __init__(self, arguments, env, columns=80, rows=24):
        self.screen = Screen(columns, rows)
        self.master, self.slave = os.openpty()
        self.set_size(columns, rows)
        self.modes_before = self.modes()
        self.process = subprocess.Popen(
            [str(each) for each in arguments], stdin=self.slave, stdout=self.slave,
            stderr=self.slave, start_new_session=True,
            env=dict(env, TERM="xterm-256color", LC_ALL="C.UTF-8") | env,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def set_size(self, columns, rows):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        """What was sent for the old size is not looked at."""
        self.pump()
        before = self.screen.erased
        self.screen.resize(columns, rows)
        self.set_size(columns, rows)
        self.wait_until(lambda: self.screen.erased > before, "the new size is drawn")

    def modes(self):
        return termios.tcgetattr(self.slave)

    def type(self, keys):
        os.write(self.master, keys.encode())

    def pump(self):
        """Takes what the program has written."""
        while select.select([self.master], [], [], 0)[0]:
            self.screen.feed(os.read(self.master, 65536))

    def wait_until(self, condition, what):
        def met():
            self.pump()
            return condition()
        try:
            return wait_for(met, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen.text()}") from None

    def wait_for_text(self, *parts):
        self.wait_until(lambda: all(part in self.screen.text() for part in parts), f"{parts}")

    def wait(self):
        """The exit status, and what was written until then is on the screen."""
        self.wait_until(lambda: self.process.poll() is not None, "the program's end")
        self.pump()
        return self.process.returncode

    def is_restored(self):
        return (not self.screen.alternate and self.screen.cursor_shown and
                self.modes() == self.modes_before)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.slave)
        with contextlib.suppress(OSError):
            os.close(self.master)
