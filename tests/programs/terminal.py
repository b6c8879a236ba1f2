"""Terminal: a program on a pseudo-terminal, driven in the manner of expect(1).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

PROMPT = "krg-ready> "
TIME_LIMIT_S = 20


class Terminal:
    """A program on a pseudo-terminal of its own, in the manner of expect(1)."""

    def __init__(self, arguments, environment, folder, owner):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.closerange(3, 1024)
            os.fchown(0, *owner)  # as if the user had logged in on it
            os.chdir(folder)
            os.execvpe(arguments[0], arguments, environment)
        self.text = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern):
        """Waits until the pattern has come; what came before it, and the match."""
        end = time.monotonic() + TIME_LIMIT_S
        while not (found := re.search(pattern, self.text)):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} within {TIME_LIMIT_S} s in:\n{self.text}")
            try:
                piece = os.read(self.fd, 65536)
            except OSError:  # the last process has closed the terminal
                piece = b""
            if not piece:
                raise AssertionError(f"the terminal closed before {pattern!r} came:\n{self.text}")
            self.text += piece.decode(errors="replace").replace("\r", "")
        before, self.text = self.text[:found.start()], self.text[found.end():]
        return before, found

    def run(self, command):
        """Types a command and waits for the prompt; what the command wrote."""
        self.type(command + "\n")
        self.expect(re.escape(command) + "\n")
        return self.expect(re.escape(PROMPT))[0]

    def end(self):
        """The exit status, once the program has ended."""
        end = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    pass
        raise AssertionError(f"the program has not ended; it wrote:\n{self.text}")

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.pid = 0

    def close(self):
        self.kill()
        os.close(self.fd)
