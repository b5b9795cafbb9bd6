"""The story, act by act. Each fact was checked a moment before it is told."""

import collections
import datetime
import json

from bucket import Bucket
from certificate import verify
from cluster import GROUP, OPERATOR, PEOPLE, SERVERS, Failed
from help_desk import HelpDesks
from people import TICKETS, Tenant, start_people_pod
from table import clock, moment

ACCOUNTS = ("acme", "globex", "initech", "umbrella")
BILLING = f"--as=system:serviceaccount:{OPERATOR}:billing"

VERSIONS, KEYS = "versions of objects in the bucket", "keys in escrow, with old versions"
BACKUP = """
apiVersion: helpdesk-operator.io/v1alpha1
kind: ColdBackup
metadata: {{name: acme-now}}
spec: {{account: acme, accountUID: {uid}, store: eu-cold, reason: Manual, expiresAt: "{expires}"}}
"""


class Story:
    """Four tenants, from their first day to the last; and two with a help desk that people use, where there is a gateway."""

    def __init__(self, cluster, screen, manifest, edge):
        self.c, self.s, self.manifest = cluster, screen, manifest
        self.sequence = collections.Counter()
        self.tenants, self.data = {}, {}
        self.help_desks = HelpDesks(cluster, screen, edge, self.billing_reports) if edge else None

    def run(self):
        try:
            self.tell()
        finally:
            if self.help_desks:
                self.help_desks.close()

    def tell(self):
        self.four_companies_sign_up()
        self.attacker_tries_the_neighbour()
        self.acme_pays()
        self.payment_of_acme_fails()
        self.owner_of_globex_erases()
        self.acme_is_blocked_and_pays()
        self.nobody_pays_for_initech_and_umbrella()
        self.initech_pays_again()
        self.people_try_to_remove_the_foundations()
        self.umbrella_expires()
        self.nothing_is_left_of_globex_and_umbrella()
        if self.help_desks:
            self.help_desks.people_use_a_help_desk("12  A help desk, in a browser")
            self.help_desks.attacker_tries_the_web("13  The attacker tries the web")
            self.help_desks.help_desk_is_blocked_and_comes_back("14  The help desk is blocked, and comes back")

    # ---- acts ----

    def four_companies_sign_up(self):
        s, c = self.s, self.c
        s.act("1  Four companies try the help desk")
        s.say("The stages are those of the real plan; their windows are seconds, so that a year fits into three minutes.")
        s.grid([
            ["", "trial", "payment grace", "blocked", "terminated", "cold backup", "erase delay"],
            ["the real plan", "14 d", "7 d", "60 d", "30 d", "30 d", "24 h"],
            ["this demo", *self.windows_of_the_demo()],
        ])

        # When four companies sign up.
        c.show_and_run("apply", "-f", self.manifest)

        # Then each is in its trial, and logs in with its own Secret.
        c.wait_until("all four are in Trial and Ready", lambda c: all(
            c.stage(a) == "Trial" and c.condition(a, "Ready").get("status") == "True" for a in ACCOUNTS))
        start_people_pod(c)
        for account in ACCOUNTS:
            self.tenants[account] = tenant = Tenant(c, account)
            tenant.creates_tickets()
            self.data[account] = tenant.checksums()
        homes = " and ".join(f"{server} ({', '.join(a for a in ACCOUNTS if self.tenants[a].server == server)})" for server in SERVERS)
        s.fact(f"Each has a namespace, a database, a login and a Secret of its own, spread over {homes}.")
        s.fact(f"Each logs in with what its Secret says and writes 50 customers and {TICKETS} tickets.")
        s.fact(f"Each knows what comes: without a payment initech is Blocked at {clock(c.status('initech')['nextTransitionTime'])}.")

    def attacker_tries_the_neighbour(self):
        s, c = self.s, self.c
        s.act("2  A tenant reaches nothing of its neighbour")

        # Given two tenants of one server, one of whose apps was taken over by an attacker.
        victim, thief = self.two_tenants_of_one_server()
        s.say(f"{victim.account} and {thief.account} share the server {victim.server}. Say that the app of {thief.account} was taken over.")

        # When the attacker uses its login against the neighbour and the server, then it is refused.
        own = thief.account
        thief.is_refused(f"{own}'s login enters {victim.account}'s database", "SELECT 1", "permission denied for database", victim)
        thief.is_refused(f"{own} becomes {victim.account}'s owner role", f"SET ROLE {victim.database}_own", "permission denied to set role")
        thief.is_refused(f"{own} sets {victim.account}'s password", f"ALTER ROLE {victim.username} PASSWORD 'x'", "permission denied|must have")
        thief.is_refused(f"{own} reads a file of the server", "SELECT pg_read_file('/etc/passwd')", "permission denied for function")
        thief.is_refused(f"{own} lifts its own limits", f"ALTER DATABASE {thief.database} CONNECTION LIMIT -1", "must be owner of database")

        # When the attacker uses its ServiceAccount to read Secrets, then it is refused.
        app = f"--as=system:serviceaccount:{thief.namespace}:default"
        c.must_refuse(f"{own}'s ServiceAccount reads {victim.account}'s Secret", "-n", victim.namespace, "get", "secret", "database", app,
                      because="is forbidden")
        c.must_refuse(f"{own}'s ServiceAccount reads the operator's keys", "-n", OPERATOR, "get", "secrets", app, because="is forbidden")

    def acme_pays(self):
        s, c = self.s, self.c
        s.act("3  acme pays, and billing may say so and nothing else")

        # When billing reports payments of acme and globex.
        self.billing_reports("acme", "Active", shown=True)
        self.billing_reports("globex", "Active")

        # Then both are Active, and acme has no deadline.
        c.wait_until("acme is Active", lambda c: c.stage("acme") == "Active" and c.stage("globex") == "Active")
        if "nextTransitionTime" in c.status("acme"):
            raise Failed("acme is paid for and still has a deadline")
        s.fact("acme is Active, and no deadline runs any more. globex has paid too.")

        # When billing writes anything else, or reports an old event again, then it is refused.
        c.must_refuse("Billing changes the plan", "patch", "hda", "acme", BILLING, "--type=merge", "-p", '{"spec":{"plan":"free"}}',
                      because="cannot patch resource")
        c.must_refuse("Billing writes the stage", "patch", "hda", "acme", "--subresource=status", BILLING, "--type=merge",
                      "-p", '{"status":{"stage":"Deleted"}}', because="only the operator writes status.stage")
        late = {"state": "Unpaid", "since": timestamp(), "sequence": self.sequence["acme"]}
        c.must_refuse("An event of billing arrives a second time", "patch", "hda", "acme", "--subresource=status", BILLING, "--type=merge",
                      "-p", json.dumps({"status": {"billing": late}}, separators=(",", ":")), because="which was counted last")

        # When people delete or close an account without the right to do so, then it is refused.
        c.must_refuse("An administrator deletes the account in passing", "delete", "hda", "acme", because="so there may be data")
        c.must_run("create", "clusterrolebinding", "helpdesk-demo-sam", "--clusterrole=helpdesk-edit", "--user=sam")
        c.must_refuse("sam, who may edit accounts, closes one", "patch", "hda", "acme", "--as=sam", "--type=merge",
                      "-p", '{"spec":{"closure":{"mode":"Cancel"}}}', because="needs the verb close")

    def payment_of_acme_fails(self):
        s, c = self.s, self.c
        s.act("4  acme's payment fails")

        # Given an open session of acme.
        self.session = self.tenants["acme"].opens_session()

        # When billing reports that the payment of acme failed.
        self.billing_reports("acme", "PastDue", shown=True)

        # Then acme has a deadline, and works until then.
        c.wait_until("acme has a deadline", lambda c: c.status("acme").get("nextStage") == "Blocked")
        self.grace_ends = c.status("acme")["nextTransitionTime"]
        self.tenants["acme"].runs_sql("INSERT INTO tickets (customer, subject) VALUES (1, 'Is something wrong with our card?')")
        self.data["acme"] = self.tenants["acme"].checksums()
        s.fact(f"The grace runs until {clock(self.grace_ends)}. Until then nobody notices: acme just wrote another ticket.")

    def owner_of_globex_erases(self):
        s, c = self.s, self.c
        # Given globex, which has paid.
        globex = self.tenants["globex"]
        s.act("5  The owner of globex wants everything erased, without a backup")

        # When its owner wants everything erased, without a backup.
        wish = {"spec": {"closure": {"mode": "Erase", "coldBackup": False, "requestedBy": "ticket 4711"}}}
        c.show_and_run("patch", "hda", "globex", "--type=merge", "-p", json.dumps(wish, separators=(",", ":")))

        # Then globex is Blocked at once, and nobody logs in.
        c.wait_until("globex is Blocked", lambda c: c.stage("globex") == "Blocked")
        promised = c.status("globex")["dataGoneBy"]
        s.fact(f"globex is Blocked at once, and {clock(promised)} is when nothing will be left.")
        globex.is_refused("globex logs in", "SELECT 1", "not permitted to log in|permission denied for database")

        # Then globex is Expired after the delay: without a database, and without a backup.
        c.wait_until("globex is Expired", lambda c: c.stage("globex") == "Expired")
        if c.backups_of("globex"):
            raise Failed("globex asked for no backup, and there is one")
        if moment(c.status("globex")["stageSince"]) < moment(promised):
            raise Failed(f"globex was erased before the delay had passed: {c.status('globex')}")
        if globex.database in c.superusers[globex.server].tenant_databases():
            raise Failed("globex is Expired and its database is still there")
        s.fact("globex is Expired: its database went after the delay, on the owner's word, and no backup was ever taken.")

    def acme_is_blocked_and_pays(self):
        s, c = self.s, self.c
        # Given acme, whose payment has failed.
        acme = self.tenants["acme"]
        s.act("6  Blocked means blocked")

        # When its grace is over.
        c.wait_until("acme is Blocked", lambda c: c.stage("acme") == "Blocked")

        # Then acme is Blocked, not before its deadline, and nobody logs in or reads on.
        if c.status("acme").get("reason") != "PaymentFailed" or moment(c.status("acme")["stageSince"]) < moment(self.grace_ends):
            raise Failed(f"acme was blocked too early or for another reason: {c.status('acme')}")
        s.fact(f"The grace is over and acme is Blocked since {clock(c.status('acme')['stageSince'])}, not a second before its deadline.")
        acme.is_refused("An agent of acme logs in", "SELECT 1", "not permitted to log in|permission denied for database")
        acme.is_refused("A customer's page, which the app reads with the same login", "SELECT subject FROM tickets LIMIT 1",
                        "not permitted to log in|permission denied for database")
        s.refusal("A session that was open all the time reads on", [self.session.must_be_ended()])
        if c.databases[acme.database][:2] != (False, 0):
            raise Failed(f"the server's catalog sees acme's database as {c.databases[acme.database]}")
        s.fact("The server's own catalog agrees: the database is there, nobody can log in, and nobody is in.")
        s.words(c.show_and_run("helpdesk", "timeline", "acme").splitlines())

        # When billing reports a payment.
        self.billing_reports("acme", "Active", shown=True)

        # Then acme is Active, and its data is unchanged.
        c.wait_until("acme is Active again", lambda c: c.stage("acme") == "Active" and c.condition("acme", "Ready").get("status") == "True")
        acme.reads_its_secret()
        self.data_is_unchanged("acme", "acme has paid and is back")

    def nobody_pays_for_initech_and_umbrella(self):
        s, c = self.s, self.c
        # Given initech and umbrella, for whom nobody pays.
        initech = self.tenants["initech"]
        s.act("7  Nobody pays for initech and umbrella")
        pair = ("initech", "umbrella")

        # When their trials end.
        c.wait_until("both trials have ended", lambda c: all(c.has_reached(a, "Blocked") for a in pair))

        # Then both are Blocked, with a promise, and each has a proven backup that an attacker cannot read.
        self.promised = {a: c.status(a)["dataGoneBy"] for a in pair}
        s.fact(f"Both are Blocked, and umbrella is told: nothing will be left after {clock(self.promised['umbrella'])}.")
        frozen = c.wait_until("a backup of each is taken while nobody is in, read back, restored and found equal",
                              lambda c: [b for a in pair for b in c.backups_of(a) if is_proven(b)] if all(
                             any(is_proven(b) for b in c.backups_of(a)) for a in pair) else None)
        for backup in frozen:
            status = backup["status"]
            s.fact(f"{backup['metadata']['name']}: {status['bytes']} bytes, restored into a scratch database at "
                   f"{clock(status['verifiedAt'])} and equal in every table.")
        self.attacker_reads_the_bucket(next(b for b in frozen if b["spec"]["account"] == "initech"))

        # When Blocked ends.
        c.wait_until("both are Terminated", lambda c: all(c.has_reached(a, "Terminated") for a in pair))

        # Then namespace, Secret and address are gone, and the data is kept.
        c.wait_until("their namespaces are gone", lambda c: not any(c.get(f"/api/v1/namespaces/{self.tenants[a].namespace}") for a in pair))
        try:
            size = c.superusers[initech.server].tenant_databases()[initech.database][2]
        except KeyError:
            raise Failed("initech's database went before anybody could look at it: the demo's windows are too short for this machine")
        if any("url" in c.status(a) for a in pair):
            raise Failed(f"a terminated account still shows an address: {[c.status(a) for a in pair]}")
        s.fact(f"Terminated: namespace, Secret and address are gone. The data is kept: initech's database has {size // 1024} KiB.")
        initech.is_refused("initech logs in", "SELECT 1", "not permitted to log in|permission denied for database")

        # When Terminated ends.
        c.wait_until("both are Deleted", lambda c: all(c.stage(a) == "Deleted" for a in pair))

        # Then no database and no role of either is left.
        for account in pair:
            tenant = self.tenants[account]
            if c.superusers[tenant.server].databases_and_roles_left(tenant.database) != (0, 0):
                raise Failed(f"{account} is Deleted and its server still has a database or a role of it")
        s.fact("Deleted: no database and no role of either is left on any server. A proven backup of each waits for its deadline.")

    def initech_pays_again(self):
        s, c = self.s, self.c
        s.act("8  initech comes back")

        # Given initech, whose database was dropped.
        before = c.status("initech")["database"]["oid"] if "oid" in c.status("initech").get("database", {}) else None

        # When billing reports a payment.
        self.billing_reports("initech", "Active", shown=True)

        # Then initech is Active in a new database, with its data as it was.
        c.wait_until("the cold backup is restored into a new database", lambda c: c.stage("initech") == "Active"
                     and c.condition("initech", "Ready").get("status") == "True")
        if before is not None and c.status("initech")["database"]["oid"] == before:
            raise Failed("initech's database has the id of the one that was dropped")
        self.tenants["initech"] = Tenant(c, "initech")
        self.data_is_unchanged("initech", "initech is Active, in a database that was made anew")
        number = self.tenants["initech"].runs_sql("INSERT INTO tickets (customer, subject) VALUES (1, 'Good to be back') RETURNING id")
        if number != str(TICKETS + 1):
            raise Failed(f"initech's next ticket has the number {number}, and the last one before had {TICKETS}")
        s.fact(f"It goes on where it stopped: its next ticket has the number {number}.")

    def people_try_to_remove_the_foundations(self):
        s, c = self.s, self.c
        s.act("9  Meanwhile: a backup now, and what everything rests on")

        # When sam asks for a backup of acme now.
        wanted = BACKUP.format(uid=self.tenants["acme"].uid, expires=timestamp(hours=1)).strip()
        s.say("sam writes a ColdBackup of acme, to be kept for an hour:")
        s.words(wanted.splitlines())
        c.must_run("apply", "--as=sam", "-f", "-", stdin=wanted)

        # Then it is taken and proven while acme works.
        c.wait_until("the backup is proven", lambda c: any(
            b["metadata"]["name"] == "acme-now" and b.get("status", {}).get("phase") == "Verified" for b in c.backups))
        self.tenants["acme"].runs_sql("INSERT INTO tickets (customer, subject) VALUES (1, 'We work on meanwhile')")
        s.fact("It was taken and proven while acme works on.")

        # When people delete that backup, forge its status, or remove what everything rests on, then it is refused.
        c.must_refuse("sam deletes it", "delete", "coldbackup", "acme-now", "--as=sam", because="is not erased yet")
        forged = '{"status":{"phase":"Verified"}}'
        c.must_refuse("An administrator says of a backup that it is proven", "patch", "coldbackup", "acme-now", "--subresource=status",
                      "--type=merge", "-p", forged, because="only the operator writes this status")
        c.must_refuse("An administrator removes the definition of accounts, and with it every account", "delete", "crd",
                      f"helpdeskaccounts.{GROUP}", because="deletes every HelpDeskAccount")
        c.must_refuse("An administrator deletes the operator's namespace, and with it the keys", "delete", "namespace", OPERATOR,
                      because="holds the installation's identity")

    def umbrella_expires(self):
        s, c = self.s, self.c
        s.act("10  umbrella does not come back")

        # Given umbrella, with the promise from when it was blocked, and two companies that sign up meanwhile.
        if self.help_desks:
            self.help_desks.sign_up()
        promised = self.promised["umbrella"]

        # When the promised time comes.
        c.wait_until("umbrella is Expired", lambda c: c.stage("umbrella") == "Expired")

        # Then umbrella is Expired, and not before.
        since = c.status("umbrella")["stageSince"]
        if moment(since) < moment(promised):
            raise Failed(f"umbrella's backup was promised until {promised} and went before {since}")
        late = (moment(since) - moment(promised)).total_seconds()
        s.fact(f"umbrella is Expired, {late:.0f} s after the moment that it was told when it was blocked.")
        s.words(c.show_and_run("helpdesk", "verify", "umbrella").splitlines())

    def nothing_is_left_of_globex_and_umbrella(self):
        s, c = self.s, self.c
        s.act("11  The proof: nothing is left of globex and umbrella")
        s.say("Asked of the servers as their superuser, of the buckets with the root's credentials, and of the cluster as its administrator.")

        # Given globex and umbrella, which have expired, and acme, which is alive.
        cold, escrow = Bucket(c, "s3-eu-1", "helpdesk-cold"), Bucket(c, "s3-eu-2", "helpdesk-escrow")

        # When every server, both buckets and the cluster are searched for them.
        here = Leftovers(c, cold, escrow)
        gone, there = [here.of(self.tenants[a]) for a in ("globex", "umbrella")], here.of(self.tenants["acme"])
        s.grid([["", "globex", "umbrella", "acme, for comparison"]] + [
            [what, *(str(left[what]) for left in (*gone, there))] for what in there])

        # Then nothing is left of the two, and the same search finds acme.
        for account, left in zip(("globex", "umbrella"), gone):
            if any(left.values()):
                raise Failed(f"something is left of {account}: {left}")
        if not all(there[what] for what in ("databases", "roles", "Secrets", VERSIONS, KEYS)):
            raise Failed(f"the same look finds nothing of acme, which is alive: {there}")
        s.fact("Every count is zero, and the same look does find what is alive.")

        # Then neither their owners' names nor addresses are left.
        for account, words in (("globex", ("Hank", "hank@globex")), ("umbrella", ("Ada Wong", "ada@umbrella"))):
            secret = c.secret(PEOPLE, "umbrella-owner") or {}
            text = json.dumps(c.accounts[account]) + b" ".join(secret.values()).decode()
            found = [word for word in words if word in text]
            if found:
                raise Failed(f"the owner of {account} can still be read in the cluster: {found}")
        s.fact("The owners' names and addresses are scrubbed from the accounts and from the Secret that one of them named.")

        # Then each has a certificate that is signed by the installation.
        for account in ("globex", "umbrella"):
            self.verify_certificate(account)

    # ---- what acts share ----

    def billing_reports(self, account, state, shown=False):
        """Billing reports a state of an account, with the next sequence number."""
        self.sequence[account] += 1
        billing = {"state": state, "since": timestamp(), "sequence": self.sequence[account], "delinquentSince": None, "periodEnd": None}
        if state == "PastDue":
            billing["delinquentSince"] = billing["since"]
        patch = json.dumps({"status": {"billing": billing}}, separators=(",", ":"))
        args = ("patch", "hda", account, "--subresource=status", BILLING, "--type=merge", "-p", patch)
        if shown:
            self.c.show_and_run(*args)
        else:
            self.c.must_run(*args)

    def data_is_unchanged(self, account, sentence):
        """The data of an account must be as it was. Tells so."""
        now = self.tenants[account].checksums()
        if now != self.data[account]:
            raise Failed(f"the data of {account} is not what it was: {self.data[account]} became {now}")
        rows = sum(n for name, (n, _) in now.items() if name.startswith("r "))
        self.s.fact(f"{sentence}. All {rows} rows are as they were: the checksums of {len(now)} tables, views and sequences are equal.")

    def two_tenants_of_one_server(self):
        """Two tenants of one server."""
        for victim in ACCOUNTS:
            for thief in ACCOUNTS:
                if thief != victim and self.tenants[victim].server == self.tenants[thief].server:
                    return self.tenants[victim], self.tenants[thief]
        raise Failed("four tenants on two servers, and no two on one")

    def windows_of_the_demo(self):
        """The demo plan's windows, as its manifest says."""
        with open(self.manifest) as file:
            lines = dict(line.strip().split(": ") for line in file if line.startswith("    ") and line.count(": ") == 1)
        return [lines[k].replace("s", " s") for k in ("trial", "paymentGrace", "blocked", "terminated", "coldBackup", "eraseDelay")]

    def attacker_reads_the_bucket(self, backup):
        """An attacker who reads the bucket must find only ciphertext."""
        bucket = Bucket(self.c, "s3-eu-1", "helpdesk-cold")
        keys = [key for key, kind in bucket.versions() if key.startswith(backup["status"]["prefix"])]
        dump = next((key for key in keys if key.endswith(".zst.age")), None)
        if dump is None:
            raise Failed(f"no dump lies in the bucket below {backup['status']['prefix']}: {keys}")
        content = bucket.read(dump)
        if not content.startswith(b"age-encryption.org/v1") or b"customer-" in content:
            raise Failed(f"{dump} can be read by whoever can read the bucket")
        self.s.fact(f"In the bucket lie {len(keys)} objects of it. The dump begins with {content[:21].decode()!r}: without its key it is noise.")

    def verify_certificate(self, account):
        """The certificate of deletion must be signed by the installation's key."""
        facts = verify(self.c, account)
        self.s.fact(f"The certificate of {account} is signed by this installation's key:")
        self.s.words([facts.replace(",", ", ")])


class Leftovers:
    """Counts what is left of an account, in every place that ever held a part of it."""

    def __init__(self, cluster, cold, escrow):
        self.c = cluster
        self.cold, self.escrow = cold.versions(), escrow.versions()
        self.uploads = cold.uploads() + escrow.uploads()
        self.secrets = cluster.get("/api/v1/secrets")["items"]
        self.jobs = cluster.get(f"/apis/batch/v1/namespaces/{OPERATOR}/jobs")["items"]

    def of(self, tenant):
        databases, roles = map(sum, zip(*(superuser.databases_and_roles_left(tenant.database) for superuser in self.c.superusers.values())))

        def count(listed, kind):
            return sum(1 for key, k in listed if tenant.uid in key and k == kind)

        def marked(objects):
            return sum(1 for o in objects if o["metadata"].get("annotations", {}).get(f"{GROUP}/account-uid") == tenant.uid)

        return {
            "databases": databases,
            "roles": roles,
            "namespaces": 1 if self.c.get(f"/api/v1/namespaces/{tenant.namespace}") else 0,
            "Secrets": marked(self.secrets),
            "Jobs": marked(self.jobs),
            VERSIONS: count(self.cold, "Version"),
            "delete markers in the bucket": count(self.cold, "DeleteMarker"),
            "open uploads": sum(1 for key in self.uploads if tenant.uid in key),
            KEYS: sum(1 for key, _ in self.escrow if tenant.uid in key),
        }


def is_proven(backup):
    return backup.get("status", {}).get("phase") == "Verified" and backup["spec"]["reason"] == "Frozen"


def timestamp(**later):
    """The current time, or a time that much later, as the API writes it."""
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**later)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
