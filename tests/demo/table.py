"""The live table: every account with its stage, the time that is left, its database and its backups."""

import datetime

from cluster import STAGES
from screen import pad

STAGE_COLOUR = {"Trial": "cyan", "Active": "green", "Blocked": "yellow", "Terminated": "magenta", "Deleted": "red", "Expired": "dim"}
PHASES = {"Pending": "taking", "Running": "taking", "Verified": "proven", "Failed": "failed", "Erasing": "erasing"}
COLUMNS = (("account", 8), ("stage", 20), ("time left", 15), ("next", 10), ("gone by", 8), ("database", 12), ("backups", 12))
BAR = 8


class Table:
    """Follows the accounts. Its bars are full when a deadline is first seen."""

    def __init__(self, screen, cluster):
        self.screen, self.cluster = screen, cluster
        self.windows = {}
        self.had_database = set()
        self.printed = {}

    def lines(self):
        """The table as lines for the footer."""
        names = sorted(self.cluster.accounts)
        if not names:
            return []
        head = "  " + "  ".join(pad(name, width) for name, width in COLUMNS)
        return [self.screen.paint("dim", head)] + [self._row(name) for name in names]

    def print_changes(self):
        """Without a terminal: prints a line for each account that has changed."""
        if self.screen.tty:
            return
        for name in sorted(self.cluster.accounts):
            cells = (self._stage(name), self._database(name).split(",")[0], self._backups(name))
            if self.printed.get(name) != cells and cells[0] != "new":
                self.printed[name] = cells
                stage, database, backups = cells
                self.screen.line(f"    · {name:9} {stage:21} database {database:8} backups {backups}")

    def _row(self, name):
        status = self.cluster.status(name)
        cells = (
            name,
            self._coloured_stage(name),
            self._time_left(name, status),
            status.get("nextStage", "—"),
            clock(status.get("dataGoneBy")),
            self._database(name),
            self._backups(name),
        )
        return "  " + "  ".join(pad(cell, width) for cell, (_, width) in zip(cells, COLUMNS)).rstrip()

    def _stage(self, name):
        """The stage that is enforced, and the one that is being entered."""
        stage = self.cluster.stage(name) or "new"
        entering = self.cluster.condition(name, "Reconciling").get("message", "").removeprefix("entering ").split(":")[0]
        return f"{stage} ▸ {entering}" if entering in STAGES and entering != stage else stage

    def _coloured_stage(self, name):
        text = self._stage(name)
        return self.screen.paint(STAGE_COLOUR.get(text.split(" ▸ ")[-1], "dim"), text)

    def _time_left(self, name, status):
        due = moment(status.get("nextTransitionTime"))
        if due is None:
            return "—"
        left = (due - now()).total_seconds()
        whole = self.windows.setdefault((name, status.get("nextStage"), due), max(left, 1))
        if left <= 0:
            return f"{'░' * BAR}  now"
        full = min(BAR, round(BAR * left / whole))
        return f"{'█' * full}{'░' * (BAR - full)} {left:4.0f} s"

    def _database(self, name):
        database = self.cluster.status(name).get("database", {}).get("name")
        seen = self.cluster.databases.get(database)
        if seen:
            self.had_database.add(name)
            can_login, sessions, *_ = seen
            return f"{'open' if can_login else 'shut'}{f', {sessions} in' if sessions else ''}"
        return "dropped" if name in self.had_database else "—"

    def _backups(self, name):
        words = [PHASES.get(b.get("status", {}).get("phase", "Pending")) for b in self.cluster.backups_of(name)]
        told = [f"{words.count(word)} {word}" for word in ("proven", "taking", "erasing", "failed") if word in words]
        return ", ".join(told) or ("erased" if words else "—")


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def moment(text):
    """A moment as the API writes it."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def clock(text):
    """A moment as a wall clock shows it."""
    at = moment(text)
    return at.astimezone().strftime("%H:%M:%S") if at else "—"
