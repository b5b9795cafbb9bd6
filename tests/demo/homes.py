"""Where the demo takes place: on a cluster of its own, or as a guest in somebody's."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from cluster import GROUP, OPERATOR, OURS, Cluster, Failed

SCRIPT = "tests/cluster/cluster"
KINDS = ("helpdeskaccounts", "coldbackups", "databaseservers", "backupstores", "helpdeskplans")


class Home:
    """What both have in common: steps that take a while, and a program that does them."""

    cluster = None

    def __init__(self, screen, name):
        self.screen, self.name = screen, name

    def step(self, what, *args):
        """Runs the cluster's script and shows that it lives."""
        began = time.monotonic()
        said = []
        with self.screen.waiting(what) as waiting:
            running = subprocess.Popen(
                [SCRIPT, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )
            try:
                for line in running.stdout:
                    said.append(line.rstrip())
                    waiting.detail = said[-1].strip()
            except BaseException:
                # An interrupted script takes away what it began, and is not interrupted in that.
                os.killpg(running.pid, signal.SIGINT)
                running.wait()
                raise
        if running.wait() != 0:
            self.screen.words(said[-25:])
            raise Failed(f"{what}: {SCRIPT} {' '.join(args)} failed")
        return time.monotonic() - began, said

    def ask(self, *args):
        return subprocess.run([SCRIPT, *args], check=True, capture_output=True, text=True).stdout.strip()

    def close(self):
        if self.cluster:
            self.cluster.close()


class Own(Home):
    """A cluster on this machine alone."""

    def start(self):
        programs = Path(self.ask("bin"))
        if not (programs / "kubernetes").exists():
            self.screen.say("The first time everything that a cluster is made of is built from its sources. That takes a while.")
        self.step("clearing the ground", self.name, "down")
        took, _ = self.step("starting a cluster", self.name, "up")
        self.screen.fact(f"A Kubernetes cluster of its own runs on this machine ({took:.0f} s).")
        took, _ = self.step("building and installing the operator", self.name, "install")
        self.screen.fact(f"The operator of this working copy is installed from its chart ({took:.0f} s).")
        image = os.environ.get("HELPDESK_IMAGE_POSTGRES", "localhost/postgres:17")
        self.cluster = Cluster(self.screen, self.ask(self.name, "kubeconfig"), programs, image)

    def collect(self, folder):
        self.step("copying the logs", self.name, "collect", str(folder))
        self.screen.say(f"All logs are in {folder}.")

    def how_to_reach(self):
        return [f"export KUBECONFIG={self.ask(self.name, 'kubeconfig')}", f"{SCRIPT} {self.name} down    # and it is gone"]

    def leave(self, keep):
        self.close()
        if not keep:
            self.step("taking the cluster down", self.name, "down")


class Current(Home):
    """Somebody's own cluster: only what was brought is taken away, and all of it."""

    def __init__(self, screen):
        super().__init__(screen, "current")
        self.brought = False

    def start(self):
        missing = [v for v in ("POSTGRES", "VERSITYGW", "OPERATOR") if f"HELPDESK_IMAGE_{v}" not in os.environ]
        if missing:
            raise Failed(
                "Your cluster needs images that it can pull. Push them, and name them in "
                + ", ".join(f"HELPDESK_IMAGE_{v}" for v in missing) + " (README.md says how they are built)."
            )
        self.step("fetching kubectl and helm", "tools")
        kubeconfig = self.ask("current", "kubeconfig")
        self.cluster = cluster = Cluster(self.screen, kubeconfig, self.ask("bin"), os.environ["HELPDESK_IMAGE_POSTGRES"])
        context = cluster.must("config", "current-context").strip()
        self.look_around()
        self.brought = True
        cluster.must("create", "namespace", OPERATOR)
        cluster.must("label", "namespace", OPERATOR, OURS)
        took, _ = self.step("starting PostgreSQL and S3 in your cluster", "current", "up")
        self.screen.fact(f"PostgreSQL and S3 run in your cluster, context {context} ({took:.0f} s).")
        took, _ = self.step("installing the operator", "current", "install")
        self.screen.fact(f"The operator is installed from its chart ({took:.0f} s).")

    def look_around(self):
        """Whatever is of this operator here and not of a demo is somebody's."""
        c = self.cluster
        code, namespace, complaint = c.kubectl("get", "namespace", OPERATOR, "-o", "json", "--ignore-not-found")
        if code != 0:
            raise Failed(f"Your cluster does not answer: {complaint}")
        ours = bool(namespace) and json.loads(namespace)["metadata"].get("labels", {}).get(f"{GROUP}/made-for") == "demo"
        if ours:
            self.screen.say("An earlier demo left something behind. That is taken away first.")
            self.brought = True
            self.take_away()
            return
        definitions = [d for d in c.must("get", "crd", "-o", "name").splitlines() if d.endswith(f".{GROUP}")]
        if namespace or definitions:
            raise Failed(
                "Your cluster has a helpdesk-operator already, and the demo would get in its way: there is "
                + (f"a namespace {OPERATOR}" if namespace else definitions[0]) + ". Use another cluster, or the demo's own: make demo"
            )

    def collect(self, _):
        pass

    def how_to_reach(self):
        return ["kubectl get helpdeskaccounts    # the next demo takes away what this one brought"]

    def leave(self, keep):
        try:
            if self.brought and not keep:
                with self.screen.waiting("taking away what was brought"):
                    self.take_away()
                self.screen.fact("Your cluster is as it was.")
        finally:
            self.close()

    def take_away(self):
        """The operator first, so that nobody puts anything back; its policies go with it. Then everything else."""
        c = self.cluster
        subprocess.run(
            [c.programs / "helm", "uninstall", OPERATOR, "--namespace", OPERATOR, "--ignore-not-found", "--wait", "--timeout", "90s"],
            env=c.environment, check=True, capture_output=True, start_new_session=True,
        )
        definitions = [d for d in c.must("get", "crd", "-o", "name").splitlines() if d.endswith(f".{GROUP}")]
        for kind in KINDS if definitions else ():
            _, names, _ = c.kubectl("get", kind, "-o", "name")
            for name in names.split():
                self.insist("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        if definitions:
            self.insist("delete", "--ignore-not-found", "--timeout=60s", *definitions)
        self.insist("delete", "clusterrolebinding", "helpdesk-demo-sam", "--ignore-not-found")
        tenants = c.must("get", "namespaces", "--selector", f"{GROUP}/account", "-o", "name").split()
        made = c.must("get", "namespaces", "--selector", OURS, "-o", "name").split()
        if tenants or made:
            self.insist("delete", "--ignore-not-found", "--timeout=120s", *sorted({*tenants, *made}))
        self.step("taking PostgreSQL and S3 away", "current", "down")
        left = [d for d in c.must("get", "crd,namespaces", "-o", "name").splitlines() if GROUP in d or OPERATOR in d]
        if left:
            raise Failed(f"still there: {', '.join(left)}")

    def insist(self, *args):
        """An API server heeds a policy for some seconds after it was removed."""
        until = time.monotonic() + 30
        while True:
            code, _, complaint = self.cluster.kubectl(*args, timeout=150)
            if code == 0:
                return
            if time.monotonic() > until:
                raise Failed(f"kubectl {' '.join(args)}: {complaint}")
            time.sleep(1)
