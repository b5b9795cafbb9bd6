"""A tenant's app and agents, who log in to its database with the credentials from its Secret."""

import re
import subprocess

from cluster import PEOPLE, Failed

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: people, namespace: {namespace}}}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsUser: 999, runAsGroup: 999, runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: psql
    image: {image}
    imagePullPolicy: IfNotPresent
    command: [sleep, infinity]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"""

# The password comes in the first line of the input, so that it is on no command line.
PSQL = (
    "read -r PGPASSWORD; export PGPASSWORD PGSSLROOTCERT=/tmp/ca.crt PGSSLMODE=verify-full PGCONNECT_TIMEOUT=10; "
    'exec psql -h "$1" -U "$2" -d "$3" -AtXq -v ON_ERROR_STOP=1 -f -'
)

# What a help desk keeps: tables, a view, a materialized view, a sequence, letters and bytes of all kinds.
TICKETS = 2000
FILL = f"""
CREATE TABLE customers (id serial PRIMARY KEY, email text UNIQUE, joined timestamptz DEFAULT now());
CREATE TABLE tickets (id bigserial PRIMARY KEY, customer int REFERENCES customers, subject text, body bytea, rate float8);
INSERT INTO customers (email) SELECT 'customer-' || n || '@example.com' FROM generate_series(1, 50) n;
INSERT INTO tickets (customer, subject, body, rate) SELECT n % 50 + 1, 'Ticket ' || n || E': the caf\\u00e9 printer is on fire\\t',
  decode(md5(n::text), 'hex'), n / 3.0 FROM generate_series(1, {TICKETS}) n;
CREATE VIEW open_tickets AS SELECT subject, email FROM tickets JOIN customers ON customers.id = customer;
CREATE MATERIALIZED VIEW busiest AS SELECT customer, count(*) AS n FROM tickets GROUP BY customer;
CREATE SEQUENCE invoice START 1000 INCREMENT 7;
SELECT nextval('invoice');
"""

# One line a relation: what it is, how many rows, a checksum over all of them.
CHECKSUMS = r"""
SELECT format('SELECT %L || count(*) || ''|'' || md5(coalesce(string_agg(t::text, ''|'' ORDER BY t::text), '''')) FROM (SELECT %s FROM app.%I) t',
  c.relkind::text || ' ' || c.relname || '|', CASE c.relkind WHEN 'S' THEN 'last_value, is_called' ELSE '*' END, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'app' AND c.relkind IN ('r', 'v', 'm', 'S') ORDER BY c.relkind, c.relname \gexec
"""


def start_people_pod(cluster):
    """Starts the pod in which all of them run psql."""
    cluster.must_run("apply", "-f", "-", stdin=POD.format(namespace=PEOPLE, image=cluster.image))
    cluster.must_run("-n", PEOPLE, "wait", "--for=condition=Ready", "pod/people", "--timeout=90s", timeout=100)


class Tenant:
    """A tenant, with the credentials from its Secret."""

    def __init__(self, cluster, account):
        self.cluster, self.account = cluster, account
        status = cluster.status(account)
        self.namespace = status["namespace"]["name"]
        self.uid = cluster.accounts[account]["metadata"]["uid"]
        self.server = status["database"]["server"]
        self.reads_its_secret()

    def reads_its_secret(self):
        """The tenant reads its credentials."""
        secret = self.cluster.secret(self.namespace, "database")
        if not secret:
            raise Failed(f"{self.account} has no Secret {self.namespace}/database")
        text = {key: value.decode() for key, value in secret.items()}
        self.host, self.username, self.password, self.database = (text[k] for k in ("host", "username", "password", "database"))
        self.cluster.must_run("-n", PEOPLE, "exec", "-i", "people", "--", "sh", "-c", "cat >/tmp/ca.crt", stdin=text["ca.crt"])

    def _command(self, neighbour):
        at = neighbour or self
        return ["-n", PEOPLE, "exec", "-i", "people", "--", "sh", "-c", PSQL, "psql", at.host, self.username, at.database]

    def psql(self, sql, neighbour=None):
        """The tenant logs in to its own database, or to a neighbour's, and runs SQL. Returns whether it succeeded, and the answer."""
        code, out, complaint = self.cluster.kubectl(*self._command(neighbour), stdin=f"{self.password}\n{sql}\n")
        return code == 0, out.strip() if code == 0 else server_message(complaint)

    def runs_sql(self, sql):
        """The tenant runs SQL, which must succeed. Returns the answer."""
        ok, said = self.psql(sql)
        if not ok:
            raise Failed(f"{self.account} could not do what it must be able to: {said}")
        return said

    def is_refused(self, who, sql, because, neighbour=None):
        """Somebody runs SQL with the tenant's login, which must be refused for this reason. Shows the refusal."""
        ok, said = self.psql(sql, neighbour)
        if ok:
            raise Failed(f"{who} was let through: {sql} answered {said!r}")
        if not re.search(because, said):
            raise Failed(f"{who} was refused for another reason than it should be: {said}")
        self.cluster.screen.refusal(who, [said])

    def creates_tickets(self):
        """The tenant creates the tables of a help desk, with its tickets."""
        self.runs_sql(FILL)

    def checksums(self):
        """Rows and checksum of each table, view and sequence."""
        lines = [line.split("|") for line in self.runs_sql(CHECKSUMS).splitlines()]
        return {name: (int(rows), checksum) for name, rows, checksum in lines}

    def opens_session(self):
        """The tenant opens a session that stays open."""
        return Session(self)


class Session:
    """A session of a tenant that stays open."""

    def __init__(self, tenant):
        self.tenant = tenant
        self.psql = tenant.cluster.start_in_background(
            *tenant._command(None), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1
        )
        self.psql.stdin.write(tenant.password + "\n")
        if self.ask() != "42":
            raise Failed(f"{tenant.account} could not open a session")

    def ask(self):
        """Asks for a number. Returns the answer, or the server's message that the session was ended."""
        try:
            self.psql.stdin.write("SELECT 42;\n")
            return self.psql.stdout.readline().strip()
        except BrokenPipeError:
            return self.psql.stdout.read().strip()

    def must_be_ended(self):
        """The server must have ended the session. Returns its message."""
        said = self.ask()
        if said == "42":
            raise Failed(f"a session of {self.tenant.account} from before the block still reads")
        try:
            rest, _ = self.psql.communicate(timeout=10)
        except (subprocess.TimeoutExpired, ValueError):
            rest = ""
        return server_message(f"{said}\n{rest}")


def server_message(complaint):
    """The message of the server, without what psql and kubectl add to it."""
    lines = [line for line in complaint.splitlines() if line.strip() and not line.startswith("command terminated with exit code")]
    text = re.sub(r"\s+", " ", " ".join(lines))
    return re.sub(r"^psql:.*?(?=FATAL:|ERROR:)", "", text).split(" psql:")[0]
