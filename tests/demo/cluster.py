"""The cluster as the demo uses it: kubectl commands of people, and a view of all accounts that is renewed all the time."""

import base64
import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

OPERATOR = "helpdesk-operator"
GROUP = "helpdesk-operator.io"
OURS = f"{GROUP}/made-for=demo"
SERVERS = ("pg-eu-1", "pg-eu-2")
PEOPLE = "helpdesk-demo"
STAGES = ("Trial", "Active", "Blocked", "Terminated", "Deleted", "Expired")

# Longer than any step takes on a machine with two cores.
PATIENCE = 150


class Failed(Exception):
    """A fact that had to be true, or a command that had to be refused, and was not."""


class Cluster:
    """kubectl for what people do, and a view of all accounts that is renewed twice a second."""

    def __init__(self, screen, kubeconfig, programs, postgres_image, plugins):
        self.screen = screen
        self.image = postgres_image
        self.programs = Path(programs)
        self.environment = dict(os.environ, KUBECONFIG=str(kubeconfig), PATH=f"{plugins}:{os.environ['PATH']}")
        self.scratch = tempfile.TemporaryDirectory(prefix="helpdesk-demo-")
        self.background = []
        self.changed = threading.Condition()
        self.accounts, self.backups, self.databases = {}, [], {}
        self.watched_at = time.monotonic()
        self.on_change = lambda: None
        self.closed = False

    # ---- kubectl ----

    def kubectl(self, *args, stdin=None, timeout=60):
        """Runs kubectl. Returns its exit code, its output and its error."""
        done = subprocess.run(
            [self.programs / "kubectl", *args], input=stdin, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        return done.returncode, done.stdout, done.stderr.strip()

    def must_run(self, *args, **options):
        """Runs kubectl, which must succeed. Returns its output."""
        code, out, complaint = self.kubectl(*args, **options)
        if code != 0:
            raise Failed(f"kubectl {' '.join(args)}: {complaint}")
        return out

    def show_and_run(self, *args, **options):
        """A person runs a command, which is shown and must succeed."""
        self.screen.command("kubectl", *args)
        return self.must_run(*args, **options)

    def must_refuse(self, who, *args, because, **options):
        """Somebody runs a command, which is shown and must be refused for this reason."""
        self.screen.command("kubectl", *args)
        code, out, complaint = self.kubectl(*args, **options)
        if code == 0:
            raise Failed(f"{who} was let through: kubectl {' '.join(args)} answered {out.strip()}")
        said = re.sub(r"^Error from server \(\w+\): ", "", complaint)
        if not re.search(because, said):
            raise Failed(f"{who} was refused for another reason than it should be: {said}")
        self.screen.refusal(who, [said])

    def start_in_background(self, *args, **pipes):
        """Starts a kubectl that runs until the demo ends."""
        helper = subprocess.Popen([self.programs / "kubectl", *args], env=self.environment, text=True, **pipes)
        self.background.append(helper)
        return helper

    # ---- the API, without a process for every question ----

    def start_watching(self):
        """Starts to renew the view of all accounts."""
        self.proxy = Path(self.scratch.name) / "api"
        self.start_in_background("proxy", f"--unix-socket={self.proxy}", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self.proxy.exists():
            if time.monotonic() > until:
                raise Failed("kubectl proxy did not start")
            time.sleep(0.05)
        self.superusers = {server: Superuser(self, server) for server in SERVERS}
        threading.Thread(target=self._watch, daemon=True).start()

    def get(self, path):
        """An object or a list of the API; None where there is none."""
        connection = UnixConnection(self.proxy)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Failed(f"the API server answered {answer.status} to {path}: {body[:300].decode(errors='replace')}")
        return json.loads(body)

    def items(self, plural):
        found = self.get(f"/apis/{GROUP}/v1alpha1/{plural}")
        return found["items"] if found else []

    def secret(self, namespace, name):
        """A Secret's values as text; None where there is none."""
        found = self.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return {k: base64.b64decode(v) for k, v in found.get("data", {}).items()} if found else None

    def _watch(self):
        while not self.closed:
            try:
                accounts = {a["metadata"]["name"]: a for a in self.items("helpdeskaccounts")}
                backups = self.items("coldbackups")
                databases = {}
                for superuser in self.superusers.values():
                    databases.update(superuser.tenant_databases())
            except (OSError, http.client.HTTPException, ValueError, Failed):
                # wait_until fails if this goes on for too long.
                time.sleep(0.5)
                continue
            with self.changed:
                self.accounts, self.backups, self.databases = accounts, backups, databases
                self.watched_at = time.monotonic()
                self.changed.notify_all()
            self.on_change()
            time.sleep(0.4)

    def wait_until(self, what, test, patience=PATIENCE):
        """Waits until the test of the view is true. Returns its result."""
        with self.screen.waiting(what) as waiting:
            while True:
                with self.changed:
                    self.changed.wait(1)
                    found = test(self)
                    silence = time.monotonic() - self.watched_at
                if found:
                    return found
                if silence > 20:
                    raise Failed(f"the cluster was silent for {silence:.0f} s while waiting until {what}")
                if waiting.seconds > patience:
                    raise Failed(f"{what}: this did not come to be within {patience} s")

    def close(self):
        self.closed = True
        for helper in self.background:
            helper.terminate()
        for helper in self.background:
            helper.wait()
        self.scratch.cleanup()

    # ---- what is seen of an account ----

    def stage(self, account):
        """The stage that is enforced, or None."""
        return (self.accounts.get(account) or {}).get("status", {}).get("stage")

    def status(self, account):
        return (self.accounts.get(account) or {}).get("status", {})

    def condition(self, account, kind):
        return next((c for c in self.status(account).get("conditions", []) if c["type"] == kind), {})

    def has_reached(self, account, stage):
        """Whether an account is in a stage or in a later one."""
        return STAGES.index(self.stage(account) or STAGES[0]) >= STAGES.index(stage)

    def backups_of(self, account):
        return [b for b in self.backups if b["spec"]["account"] == account]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which no other user may open."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Superuser:
    """The superuser of a database server. Reads only catalogs, because a session in a tenant's database would be noticed."""

    TENANTS = """SELECT d.datname, EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN (d.datname || '_a', d.datname || '_b') AND r.rolcanlogin
        AND has_database_privilege(r.rolname, d.datname, 'CONNECT')),
        (SELECT count(*) FROM pg_stat_activity s WHERE s.usename IN (d.datname || '_a', d.datname || '_b')), pg_database_size(d.oid)
        FROM pg_database d WHERE d.datname ~ '^t_[0-9a-f]{16}$'"""

    def __init__(self, cluster, server):
        self.cluster, self.server = cluster, server
        self.lock = threading.Lock()
        self.psql = None

    def ask(self, query):
        """The rows of a query, each a list of texts."""
        with self.lock:
            if self.psql is None or self.psql.poll() is not None:
                self.psql = self.cluster.start_in_background(
                    *f"exec -i -n databases {self.server}-0 -c postgresql -- psql -h /run/postgresql -U postgres -AtXq -F |".split(),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1,
                )
            self.psql.stdin.write(f"{query};\n\\echo -- end --\n")
            rows = []
            for line in self.psql.stdout:
                if line.startswith("-- end --"):
                    return rows
                if "ERROR:" in line:
                    raise Failed(f"{self.server}: {line.strip()}")
                rows.append(line.rstrip("\n").split("|"))
        raise Failed(f"the session with {self.server} ended: {rows}")

    def tenant_databases(self):
        """Name, whether its tenant can log in, sessions, bytes and server of each tenant's database."""
        return {name: (can == "t", int(sessions), int(size), self.server) for name, can, sessions, size in self.ask(self.TENANTS)}

    def databases_and_roles_left(self, name):
        """How many databases and roles of this name there are."""
        [[databases, roles]] = self.ask(
            f"SELECT (SELECT count(*) FROM pg_database WHERE starts_with(datname, '{name}')), "
            f"(SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{name}'))"
        )
        return int(databases), int(roles)
