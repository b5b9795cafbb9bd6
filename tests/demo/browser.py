"""A real browser, which visits tenants' addresses through the gateway, and a client of single requests."""

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from cluster import Failed

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
PACKAGES = ("chromium", "chromium-driver", "fonts-dejavu-core")
# The key of an element in WebDriver's answers (https://www.w3.org/TR/webdriver2/#elements).
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
WEBDRIVER_SECONDS = 90


class Edge:
    """How this machine reaches the gateway of a cluster."""

    def __init__(self, env):
        """Reads the file that tells tests how to reach the cluster."""
        variables = dict(line.split("=", 1) for line in Path(env).read_text().splitlines())
        self.address = variables["HELPDESK_TEST_EDGE_ADDRESS"]
        self.authority = variables["HELPDESK_TEST_CA"]
        self.certificate = variables["HELPDESK_TEST_EDGE_CERTIFICATE"]
        # Another address of this machine than the one that its browser comes from.
        self.stranger = variables["HELPDESK_TEST_EDGE_CLIENTS"].split(",")[0]

    def own_address(self):
        """The address of this machine that the gateway sees."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self.address, 443))
            return probe.getsockname()[0]

    def request(self, host, path, headers=(), source=None):
        """One request, from that address of this machine; a redirect is followed once. Returns status and body."""
        for _ in range(2):
            connection = Connection(self, host, source)
            try:
                connection.request("GET", path, headers=dict(headers))
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            finally:
                connection.close()
            if answer.status not in (301, 302, 307, 308):
                break
            path = re.sub("^https://[^/]*", "", answer.headers["Location"])
        return answer.status, body


class Connection(http.client.HTTPSConnection):
    """A connection to a tenant's address, whose name no DNS knows here."""

    def __init__(self, edge, host, source):
        super().__init__(host, timeout=30, context=ssl.create_default_context(cafile=edge.authority))
        self.edge, self.source = edge, (source, 0) if source else None

    def connect(self):
        plain = socket.create_connection((self.edge.address, 443), self.timeout, self.source)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


class Browser:
    """Chromium without a window, driven by WebDriver."""

    def __init__(self, edge, domain):
        self.profile = tempfile.TemporaryDirectory(prefix="helpdesk-demo-browser-")
        self.driver = subprocess.Popen(
            [DRIVER, "--port=0"], env=dict(os.environ, HOME=self.profile.name), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        said = next((line for line in self.driver.stdout if "successfully on port" in line), "")
        if not said:
            raise Failed("chromedriver did not start")
        self.url = f"http://127.0.0.1:{said.rsplit(' ', 1)[1].strip().rstrip('.')}/session"
        self.session = ""
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,800", "--no-proxy-server",
            "--disable-background-networking", "--disable-component-update", "--no-first-run", "--lang=en",
            f"--user-data-dir={self.profile.name}/profile",
            f"--host-resolver-rules=MAP *.{domain} {edge.address}",
            # The authority of this cluster is in no browser; the gateway's certificate is trusted by its key, and no other is.
            f"--ignore-certificate-errors-spki-list={key_digest(edge.certificate)}",
        ]
        options = {"binary": CHROMIUM, "args": arguments}
        made = self._ask("POST", "", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "timeouts": {"implicit": 15000}}}})
        self.session = "/" + made["sessionId"]

    def open(self, url):
        """Opens a page. Returns the status of its answer."""
        self._ask("POST", "/url", {"url": url})
        return self.script("return performance.getEntriesByType('navigation')[0].responseStatus")

    def follow(self, path):
        """Goes from the page to another one of the same site, as a link does."""
        self.script(f"location.assign({json.dumps(path)})")

    def script(self, text):
        return self._ask("POST", "/execute/sync", {"script": text, "args": []})

    def title(self):
        return self._ask("GET", "/title")

    def text(self):
        return self.script("return document.body.innerText")

    def fill_in(self, css, text):
        self._ask("POST", f"/element/{self._element(css)}/value", {"text": text})

    def click(self, css):
        self._ask("POST", f"/element/{self._element(css)}/click", {})

    def cookies(self):
        """The cookies of the page, as a request has them."""
        return "; ".join(f"{c['name']}={c['value']}" for c in self._ask("GET", "/cookie"))

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def close(self):
        try:
            if self.session:
                self._ask("DELETE", "")
        except (Failed, OSError):
            pass
        self.driver.terminate()
        self.driver.wait()
        self.profile.cleanup()

    def _element(self, css):
        return self._ask("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + self.session + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=WEBDRIVER_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            said = json.load(error)["value"]
            raise Failed(f"the browser could not do {method} {path}: {said['error']}: {said['message'].splitlines()[0]}") from error


def key_digest(certificate):
    """The digest of a certificate's public key, as Chromium takes it."""
    public = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"], check=True, capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=public, check=True, capture_output=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def install():
    """Installs the browser from Debian, where it is missing."""
    if os.path.exists(CHROMIUM) and os.path.exists(DRIVER):
        return
    quiet = dict(env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *command], **quiet)
    if done.returncode != 0:
        raise Failed(f"the browser could not be installed: {done.stderr.strip()}")
