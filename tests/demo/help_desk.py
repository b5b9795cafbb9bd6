"""The acts in which people use a help desk in a browser, and an attacker tries the web."""

import base64
import json
import re
from pathlib import Path

from browser import Browser
from cluster import Failed

REPO = Path(__file__).resolve().parents[2]
PICTURES = REPO / "target" / "demo-pictures"
DOMAIN = "helpdesk.example"
ACCOUNTS = ("hooli", "vandelay")
SUBJECT = "The coffee machine refuses decaf"


class HelpDesks:
    """Two tenants with Request Tracker: hooli, and vandelay, which an attacker has taken over."""

    def __init__(self, cluster, screen, edge, billing_reports):
        self.c, self.s, self.edge, self.billing_reports = cluster, screen, edge, billing_reports
        self.browser = None
        self.pictures = 0

    def sign_up(self):
        """Both sign up. Their apps start while other acts go on."""
        manifest = (REPO / "tests" / "demo" / "help-desks.yaml").read_text().replace("${BROWSER}", self.edge.own_address())
        self.c.must_run("apply", "-f", "examples/request-tracker.yaml")
        self.c.must_run("apply", "-f", "-", stdin=manifest)
        self.s.fact("Two more companies sign up, hooli and vandelay, for a plan with a real app: a Request Tracker of their own.")

    def close(self):
        if self.browser:
            self.browser.close()

    def people_use_a_help_desk(self, title):
        s, c = self.s, self.c
        s.act(title)

        # Given hooli, whose app was started by the operator.
        c.wait_until("both apps run and both addresses answer", lambda c: all(
            c.condition(a, "AppReady").get("status") == "True" and "url" in c.status(a) for a in ACCOUNTS))
        self.url = c.status("hooli")["url"].rstrip("/")
        pods = c.must_run("-n", namespace(c, "hooli"), "get", "pods", "--no-headers").splitlines()
        s.fact(f"hooli's Request Tracker runs in {len(pods)} pods of its own namespace, one of which made its schema and has ended, and "
               f"answers at {self.url}.")

        # When a person opens the address in a browser, then it is the login page of the app.
        self.browser = Browser(self.edge, DOMAIN)
        self.must_show(self.url + "/", 200, "Login")
        self.take_picture("the login page of Request Tracker, in Chromium, through the gateway")

        # When an agent logs in with the password from the Secret, then a ticket can be written.
        self.log_in()
        self.browser.follow("/Ticket/Create.html?Queue=1")
        self.browser.fill_in("input[name=Subject]", SUBJECT)
        self.browser.click("input[name=SubmitTicket]")
        number = re.search(r"#(\d+)", self.browser.title())
        if not number or SUBJECT not in self.browser.title():
            raise Failed(f"the ticket was not made; the page is {self.browser.title()!r}: {self.browser.text()[:300]}")
        self.ticket = number[1]
        self.take_picture(f"an agent has logged in and written ticket {self.ticket}")
        self.session = self.browser.cookies()
        self.credentials = {a: "Basic " + base64.b64encode(f"root:{self.password(a)}".encode()).decode() for a in ACCOUNTS}
        self.must_answer("hooli's program reads the ticket", "hooli", f"/REST/2.0/ticket/{self.ticket}", 200, SUBJECT, self.api("hooli"))

    def attacker_tries_the_web(self, title):
        s = self.s
        s.act(title)
        s.say("The attacker has vandelay's administrator, its password and its session, and another address than hooli's agents.")

        # Given a session of vandelay's administrator.
        status, _ = self.edge.request(f"vandelay.{DOMAIN}", "/REST/2.0/tickets?query=id>0", self.api("vandelay"))
        if status != 200:
            raise Failed(f"vandelay's own administrator got {status}")
        foreign = self.foreign_session()

        # When the attacker uses them against hooli, then each is refused, by the gateway or by the app.
        path = f"/REST/2.0/ticket/{self.ticket}"
        self.is_refused("vandelay's password reads hooli's ticket", path, 401, self.api("vandelay"))
        self.is_refused("A program without credentials reads it", path, 401, {})
        renamed = {"Cookie": foreign.replace("_vandelay", "_hooli")}
        self.is_refused("vandelay's session cookie, renamed to hooli's, opens it: the app asks for a login", f"/Ticket/Display.html?id={self.ticket}",
                        200, renamed, expected="Login")
        self.is_refused("A stolen session of hooli's agent, used from an address that is not on its list", f"/Ticket/Display.html?id={self.ticket}",
                        403, {"Cookie": self.session}, source=self.edge.stranger)
        for other in ("//Ticket/Display.html", "/NoAuth/..%2fTicket/Display.html", "/NoAuth/../Ticket/Display.html", "/static/%2e%2e/Ticket/Display.html"):
            self.is_refused("The same, with the path written otherwise", f"{other}?id={self.ticket}", 403,
                            {"Cookie": self.session}, source=self.edge.stranger)

    def help_desk_is_blocked_and_comes_back(self, title):
        s, c = self.s, self.c
        s.act(title)

        # When hooli pays first, and then its payment fails, and the grace is over.
        self.billing_reports("hooli", "Active")
        c.wait_until("hooli is Active", lambda c: c.stage("hooli") == "Active")
        self.billing_reports("hooli", "PastDue", shown=True)
        c.wait_until("hooli is Blocked", lambda c: c.stage("hooli") == "Blocked")

        # Then nobody gets in, whatever they hold, and the pods are gone.
        self.must_show(f"{self.url}/Ticket/Display.html?id={self.ticket}", 503, "")
        self.take_picture("hooli is Blocked: the same page, a moment later")
        self.is_refused("hooli's customer opens the login page", "/NoAuth/Login.html", 503, {})
        self.is_refused("hooli's agent goes on in an old session", f"/Ticket/Display.html?id={self.ticket}", 503, {"Cookie": self.session})
        self.is_refused("hooli's program reads the ticket", f"/REST/2.0/ticket/{self.ticket}", 503, self.api("hooli"))
        c.wait_until("the app has no pods", lambda c: c.condition("hooli", "AppReady").get("reason") == "Stopped")
        s.fact("The app has no pods any more: whoever had a page open is cut off, too.")

        # When hooli pays, then the app is back, with the ticket from before.
        self.billing_reports("hooli", "Active", shown=True)
        c.wait_until("the app runs again and its address answers", lambda c: c.stage("hooli") == "Active"
                     and c.condition("hooli", "AppReady").get("status") == "True" and "url" in c.status("hooli"))
        c.wait_until("the gateway leads to it again", lambda _: self.edge.request(f"hooli.{DOMAIN}", "/NoAuth/Login.html")[0] == 200)
        self.must_show(f"{self.url}/Ticket/Display.html?id={self.ticket}", 200, "Login")
        s.fact("The session from before the block is over: the app asks the agent for a login.")
        self.log_in()
        self.browser.open(f"{self.url}/Ticket/Display.html?id={self.ticket}")
        if SUBJECT not in self.browser.title():
            raise Failed(f"ticket {self.ticket} is not there any more; the page is {self.browser.title()!r}")
        self.take_picture(f"hooli has paid: ticket {self.ticket} is there")
        s.say(f"The pictures are in {PICTURES.relative_to(REPO)}.")

    # ---- what acts share ----

    def api(self, account):
        return {"Authorization": self.credentials[account]}

    def password(self, account):
        return self.c.secret(namespace(self.c, account), "app-admin")["password"].decode()

    def log_in(self):
        """The administrator logs in on the page of the app, with the password from the Secret."""
        self.browser.open(f"{self.url}/")
        self.browser.fill_in("input[name=user]", "root")
        self.browser.fill_in("input[name=pass]", self.password("hooli"))
        self.browser.click("input[type=submit]")
        if "Logged in as root" not in self.browser.text() and "RT at a glance" not in self.browser.title():
            raise Failed(f"the administrator could not log in; the page is {self.browser.title()!r}: {self.browser.text()[:300]}")

    def foreign_session(self):
        """The cookie of vandelay's administrator."""
        other = Browser(self.edge, DOMAIN)
        try:
            other.open(f"https://vandelay.{DOMAIN}/NoAuth/Login.html")
            other.fill_in("input[name=user]", "root")
            other.fill_in("input[name=pass]", self.password("vandelay"))
            other.click("input[type=submit]")
            return other.cookies()
        finally:
            other.close()

    def must_show(self, url, status, title):
        seen = self.browser.open(url), self.browser.title()
        if seen[0] != status or title not in seen[1]:
            raise Failed(f"the browser got {seen} at {url}")

    def must_answer(self, who, account, path, status, text, headers):
        seen, body = self.edge.request(f"{account}.{DOMAIN}", path, headers)
        if seen != status or text not in body:
            raise Failed(f"{who}: the answer was {seen}: {body[:300]}")
        self.s.fact(f"{who}.")

    def is_refused(self, who, path, status, headers, source=None, expected=""):
        """Somebody asks hooli's address, and must get this status, and not the ticket. Shows the first words of the answer."""
        seen, body = self.edge.request(f"hooli.{DOMAIN}", path, headers, source)
        if seen != status or expected not in body or SUBJECT in body:
            raise Failed(f"{who}: GET {path} was answered with {seen}: {body[:300]}")
        self.s.refusal(who, [f"GET {path}: {seen} {first_words(body)}"])

    def take_picture(self, what):
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.pictures += 1
        path = PICTURES / f"{self.pictures}.png"
        self.browser.screenshot(path)
        self.s.fact(f"{what[0].upper()}{what[1:]} ({path.relative_to(REPO)}).")


def namespace(cluster, account):
    return cluster.status(account)["namespace"]["name"]


def first_words(body):
    """What a person reads first of an answer."""
    try:
        return json.loads(body).get("message", "")
    except ValueError:
        text = re.sub(r"<(style|script|title|head)\b.*?</\1>|<[^>]+>", " ", body, flags=re.S)
        return " ".join(text.split())[:70]
