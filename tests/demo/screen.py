"""What the audience sees: sentences that scroll, and below them a table that is drawn in place.

Where the output is no terminal there is no table: a line is added whenever something in it turns.
"""

import os
import re
import shutil
import sys
import textwrap
import threading
import time

WIDTH = min(98, shutil.get_terminal_size((100, 24)).columns - 2)
COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Screen:
    """Writes whole lines, and keeps a footer below them. Safe to use from several threads."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.tty = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.coloured = self.tty and "NO_COLOR" not in os.environ
        self.footer = lambda: []
        self.doing = None
        self.began = time.monotonic()
        self._drawn = 0
        self._lock = threading.RLock()
        self._closed = threading.Event()
        if self.tty:
            self.out.write("\x1b[?25l")
            threading.Thread(target=self._redraw, daemon=True).start()

    # ---- sentences ----

    def title(self, text):
        self.line()
        self.line(self.paint("bold", text))

    def act(self, text):
        after = f"{time.monotonic() - self.began:.0f} s"
        rule = "─" * (WIDTH - len(text) - len(after) - 4)
        self.line()
        self.line(f"{self.paint('bold', text)} {self.paint('dim', rule + ' ' + after)}")

    def say(self, text):
        for line in textwrap.wrap(text, WIDTH - 2):
            self.line("  " + line)

    def fact(self, text):
        """Something that was seen to be so a moment ago."""
        head, *rest = textwrap.wrap(text, WIDTH - 4)
        self.line(f"  {self.paint('green', '✓')} {head}")
        for line in rest:
            self.line("    " + line)

    def command(self, *words):
        """A command as a shell takes it, in lines that fit."""
        lines = [[]]
        for word in map(quoted, words):
            if lines[-1] and len(" ".join([*lines[-1], word])) > WIDTH - 8:
                lines[-1].append("\\")
                lines.append([])
            lines[-1].append(word)
        lines = [piece for line in lines for piece in in_pieces(" ".join(line), WIDTH - 6)]
        for number, line in enumerate(lines):
            self.line("  " + self.paint("cyan", ("$ " if number == 0 else "    ") + line))

    def refusal(self, who, words):
        """Something that was tried and refused, in the words of whoever refused it."""
        self.line(f"  {self.paint('green', '✓')} {who.ljust(WIDTH - 13)} {self.paint('yellow', 'refused')}")
        for said in words:
            for line in textwrap.wrap(said, WIDTH - 6, break_on_hyphens=False):
                self.line("      " + self.paint("dim", line))

    def words(self, lines):
        """What somebody else said."""
        for line in lines:
            for piece in textwrap.wrap(line, WIDTH - 6, break_on_hyphens=False):
                self.line("      " + self.paint("dim", piece))

    def failure(self, text):
        self.line()
        for line in textwrap.wrap(text, WIDTH):
            self.line(self.paint("red", line))

    def grid(self, rows):
        """A small table in the flow of sentences; its first row is its head."""
        widths = [max(len(plain(row[n])) for row in rows) for n in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [pad(row[0], widths[0])] + [pad(cell, width, left=False) for cell, width in zip(row[1:], widths[1:])]
            line = "    " + "   ".join(cells)
            self.line(self.paint("dim", line) if number == 0 else line)

    # ---- waiting ----

    def waiting(self, what):
        """A context in which the footer says what is being waited for."""
        return Waiting(self, what)

    # ---- drawing ----

    def paint(self, colour, text):
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.coloured else text

    def line(self, text=""):
        with self._lock:
            if self.tty:
                self._write(self._back() + text.rstrip() + "\x1b[K\n" + self._footer())
            else:
                self._write(text.rstrip() + "\n")

    def close(self):
        """Leaves the terminal as it was found, without the footer."""
        self._closed.set()
        with self._lock:
            if self.tty:
                self._write(self._back() + "\x1b[J\x1b[?25h")
                self.tty = False

    def _redraw(self):
        while not self._closed.wait(0.2):
            with self._lock:
                if self.tty:
                    self._write(self._back() + self._footer())

    def _back(self):
        """To the footer's first line. Lines are written over, not cleared first, so that nothing flickers."""
        return f"\x1b[{self._drawn}A\r" if self._drawn else "\r"

    def _footer(self):
        size = shutil.get_terminal_size((100, 24))
        lines = self.footer()
        lines = [""] + lines if lines else []
        if len(lines) > size.lines - 6:
            lines = []
        if self.doing:
            lines = ["", self.doing.line()] + lines
        self._drawn = len(lines)
        return "".join(cut(line, size.columns - 1) + "\x1b[K\n" for line in lines) + "\x1b[J"

    def _write(self, text):
        self.out.write(text)
        self.out.flush()


class Waiting:
    """What is being waited for, since when, and a detail that changes."""

    def __init__(self, screen, what):
        self.screen, self.what, self.detail = screen, what, ""
        self.began = time.monotonic()

    def __enter__(self):
        self.before, self.screen.doing = self.screen.doing, self
        return self

    def __exit__(self, *_):
        self.screen.doing = self.before

    @property
    def seconds(self):
        return time.monotonic() - self.began

    def line(self):
        spinner = SPINNER[int(self.seconds * 5) % len(SPINNER)]
        text = f"  {self.screen.paint('cyan', spinner)} {self.what} … {self.seconds:.0f} s"
        return f"{text}  {self.screen.paint('dim', self.detail)}" if self.detail else text


def quoted(word):
    """A word as a shell takes it."""
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def in_pieces(line, width):
    """Cuts JSON that is too long for a line at its commas: inside quotes a shell takes the break for white space."""
    pieces = [""]
    for part in re.split(r"(?<=,)", line):
        if pieces[-1] and len(pieces[-1]) + len(part) > width:
            pieces.append("  ")
        pieces[-1] += part
    return pieces


def plain(text):
    """The text without colours: what it takes on the screen."""
    return ANSI.sub("", text)


def pad(text, width, left=True):
    space = " " * max(0, width - len(plain(text)))
    return text + space if left else space + text


def cut(text, width):
    """Cuts a line that may have colours to what fits."""
    if len(plain(text)) <= width:
        return text
    out, shown = [], 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", text):
        if ANSI.fullmatch(part):
            out.append(part)
        else:
            out.append(part[: max(0, width - shown)])
            shown += len(part)
    return "".join(out)
