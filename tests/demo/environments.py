"""Where the demo runs: on a cluster of its own, or on the cluster of KUBECONFIG."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import browser
from cluster import GROUP, OPERATOR, OURS, Cluster, Failed

SCRIPT = "tests/cluster/cluster"
# Where the demo keeps Secrets of owners.
OWNERS = ("--set", "owners.namespaces={helpdesk-demo}")
KINDS = ("helpdeskaccounts", "coldbackups", "databaseservers", "backupstores", "helpdeskplans")


class Environment:
    """What both have in common: tests/cluster/cluster does their steps, which take a while."""

    cluster = None
    # How the gateway is reached; None: there is none.
    edge = None

    def __init__(self, screen, name):
        self.screen, self.name = screen, name

    def run_script(self, what, *args):
        """Runs the script and shows its last line meanwhile. Returns how long it took, and its output."""
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
                # An interrupted script removes what it began. The demo waits for that.
                os.killpg(running.pid, signal.SIGINT)
                running.wait()
                raise
        if running.wait() != 0:
            self.screen.words(said[-25:])
            raise Failed(f"{what}: {SCRIPT} {' '.join(args)} failed")
        return time.monotonic() - began, said

    def build_plugin(self):
        """Builds `kubectl helpdesk`. Returns the folder that has it."""
        with self.screen.waiting("building kubectl helpdesk"):
            built = subprocess.run(["cargo", "build", "--locked", "--bin", "kubectl-helpdesk"], capture_output=True, text=True)
        if built.returncode != 0:
            raise Failed(f"kubectl helpdesk cannot be built: {built.stderr[-2000:]}")
        return Path(os.environ.get("CARGO_TARGET_DIR", "target")).resolve() / "debug"

    def script_output(self, *args):
        return subprocess.run([SCRIPT, *args], check=True, capture_output=True, text=True).stdout.strip()

    def close(self):
        if self.cluster:
            self.cluster.close()


class OwnCluster(Environment):
    """A cluster of the demo's own, on this machine."""

    def start(self):
        programs = Path(self.script_output("bin"))
        if not (programs / "kubernetes").exists():
            self.screen.say("The first time everything that a cluster is made of is built from its sources. That takes a while.")
        self.run_script("clearing the ground", self.name, "down")
        took, _ = self.run_script("starting a cluster", self.name, "up", "--edge")
        self.screen.fact(f"A Kubernetes cluster of its own runs on this machine, with Envoy Gateway ({took:.0f} s).")
        with self.screen.waiting("installing a browser"):
            browser.install()
        took, _ = self.run_script("building and installing the operator", self.name, "install", *OWNERS)
        self.screen.fact(f"The operator of this working copy is installed from its chart ({took:.0f} s).")
        image = os.environ.get("HELPDESK_IMAGE_POSTGRES", "localhost/postgres:17")
        self.cluster = Cluster(self.screen, self.script_output(self.name, "kubeconfig"), programs, image, self.build_plugin())
        self.edge = browser.Edge(self.script_output(self.name, "env"))

    def collect_logs(self, folder):
        self.run_script("copying the logs", self.name, "collect", str(folder))
        self.screen.say(f"All logs are in {folder}.")

    def how_to_reach(self):
        return [f"export KUBECONFIG={self.script_output(self.name, 'kubeconfig')}", f"{SCRIPT} {self.name} down    # and it is gone"]

    def clean_up(self, keep):
        self.close()
        if not keep:
            self.run_script("taking the cluster down", self.name, "down")


class CurrentCluster(Environment):
    """The cluster of KUBECONFIG: the demo removes everything that it has installed, and nothing else."""

    def __init__(self, screen):
        super().__init__(screen, "current")
        self.installed = False

    def start(self):
        missing = [v for v in ("POSTGRES", "VERSITYGW", "OPERATOR") if f"HELPDESK_IMAGE_{v}" not in os.environ]
        if missing:
            raise Failed(
                "Your cluster needs images that it can pull. Push them, and name them in "
                + ", ".join(f"HELPDESK_IMAGE_{v}" for v in missing) + " (README.md says how they are built)."
            )
        self.run_script("fetching kubectl and helm", "tools")
        kubeconfig = self.script_output("current", "kubeconfig")
        image = os.environ["HELPDESK_IMAGE_POSTGRES"]
        self.cluster = cluster = Cluster(self.screen, kubeconfig, self.script_output("bin"), image, self.build_plugin())
        context = cluster.must_run("config", "current-context").strip()
        self.check_for_another_operator()
        self.installed = True
        cluster.must_run("create", "namespace", OPERATOR)
        cluster.must_run("label", "namespace", OPERATOR, OURS)
        took, _ = self.run_script("starting PostgreSQL and S3 in your cluster", "current", "up")
        self.screen.fact(f"PostgreSQL and S3 run in your cluster, context {context} ({took:.0f} s).")
        took, _ = self.run_script("installing the operator", "current", "install", *OWNERS)
        self.screen.fact(f"The operator is installed from its chart ({took:.0f} s).")

    def check_for_another_operator(self):
        """Fails if an operator is installed that is not a demo's. Removes what an earlier demo left behind."""
        c = self.cluster
        code, namespace, complaint = c.kubectl("get", "namespace", OPERATOR, "-o", "json", "--ignore-not-found")
        if code != 0:
            raise Failed(f"Your cluster does not answer: {complaint}")
        ours = bool(namespace) and json.loads(namespace)["metadata"].get("labels", {}).get(f"{GROUP}/made-for") == "demo"
        if ours:
            self.screen.say("An earlier demo left something behind. That is taken away first.")
            self.installed = True
            self.remove_everything()
            return
        guards = "validatingadmissionpolicybindings,validatingadmissionpolicies"
        c.must_run("delete", guards, "--selector", f"app.kubernetes.io/name={OPERATOR}", "--ignore-not-found")
        definitions = [d for d in c.must_run("get", "crd", "-o", "name").splitlines() if d.endswith(f".{GROUP}")]
        if namespace or definitions:
            raise Failed(
                "Your cluster has a helpdesk-operator already, and the demo would get in its way: there is "
                + (f"a namespace {OPERATOR}" if namespace else definitions[0]) + ". Use another cluster, or the demo's own: make demo"
            )

    def collect_logs(self, _):
        pass

    def how_to_reach(self):
        return ["kubectl get helpdeskaccounts    # the next demo takes away what this one brought"]

    def clean_up(self, keep):
        try:
            if self.installed and not keep:
                with self.screen.waiting("taking away what was brought"):
                    self.remove_everything()
                self.screen.fact("Your cluster is as it was.")
        finally:
            self.close()

    def remove_everything(self):
        """Removes the operator and its policies first, so that nothing is created again. Then removes everything else."""
        c = self.cluster
        subprocess.run(
            [c.programs / "helm", "uninstall", OPERATOR, "--namespace", OPERATOR, "--ignore-not-found", "--wait", "--timeout", "90s"],
            env=c.environment, check=True, capture_output=True, start_new_session=True,
        )
        guards = "validatingadmissionpolicybindings,validatingadmissionpolicies"
        c.must_run("delete", guards, "--selector", f"app.kubernetes.io/name={OPERATOR}", "--ignore-not-found")
        definitions = [d for d in c.must_run("get", "crd", "-o", "name").splitlines() if d.endswith(f".{GROUP}")]
        for kind in KINDS if definitions else ():
            _, names, _ = c.kubectl("get", kind, "-o", "name")
            for name in names.split():
                self.kubectl_until_accepted("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        if definitions:
            self.kubectl_until_accepted("delete", "--ignore-not-found", "--timeout=60s", *definitions)
        self.kubectl_until_accepted("delete", "clusterrolebinding", "helpdesk-demo-sam", "--ignore-not-found")
        tenants = c.must_run("get", "namespaces", "--selector", f"{GROUP}/account", "-o", "name").split()
        made = c.must_run("get", "namespaces", "--selector", OURS, "-o", "name").split()
        if tenants or made:
            self.kubectl_until_accepted("delete", "--ignore-not-found", "--timeout=120s", *sorted({*tenants, *made}))
        self.run_script("taking PostgreSQL and S3 away", "current", "down")
        left = [d for d in c.must_run("get", "crd,namespaces", "-o", "name").splitlines() if GROUP in d or OPERATOR in d]
        if left:
            raise Failed(f"still there: {', '.join(left)}")

    def kubectl_until_accepted(self, *args):
        """Repeats a command for 30 s, because an API server applies a policy for some seconds after its removal."""
        until = time.monotonic() + 30
        while True:
            code, _, complaint = self.cluster.kubectl(*args, timeout=150)
            if code == 0:
                return
            if time.monotonic() > until:
                raise Failed(f"kubectl {' '.join(args)}: {complaint}")
            time.sleep(1)
