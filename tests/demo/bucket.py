"""Reads a bucket with the root's credentials: every version, every delete marker, every open upload."""

import datetime
import hashlib
import hmac
import http.client
import re
import ssl
import subprocess
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree

from cluster import OPERATOR, Failed

EMPTY = hashlib.sha256(b"").hexdigest()


class Bucket:
    """An S3 client that uses a forwarded port, so that it works in any cluster."""

    def __init__(self, cluster, server, name):
        self.server, self.name = server, name
        root = cluster.secret("storage", server)
        self.key = root["root-access-key"].decode()
        self.secret = root["root-secret-key"].decode()
        authority = cluster.secret(OPERATOR, "s3-ca")["ca.crt"].decode()
        self.tls = ssl.create_default_context(cadata=authority)
        forward = cluster.start_in_background("-n", "storage", "port-forward", f"service/{server}", ":443", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        if not found:
            raise Failed(f"no port was forwarded to {server}")
        self.port = int(found[1])

    def versions(self):
        """Every version and delete marker in the bucket, as (key, kind)."""
        found, marker = [], {}
        while True:
            page = self._xml("", {"versions": "", **marker})
            for entry in page:
                if entry.tag in ("Version", "DeleteMarker"):
                    found.append((entry.findtext("Key"), entry.tag))
            if page.findtext("IsTruncated") != "true":
                return found
            marker = {"key-marker": page.findtext("NextKeyMarker"), "version-id-marker": page.findtext("NextVersionIdMarker") or ""}

    def uploads(self):
        """The key of every upload that was begun and never completed."""
        return [entry.findtext("Key") for entry in self._xml("", {"uploads": ""}) if entry.tag == "Upload"]

    def read(self, key):
        return self._get(urllib.parse.quote(key), {})

    def _xml(self, key, query):
        text = re.sub(rb' xmlns="[^"]*"', b"", self._get(key, query))
        return ElementTree.fromstring(text)

    def _get(self, key, query):
        path = f"/{self.name}/{key}".rstrip("/")
        for attempt in range(5):
            connection = http.client.HTTPSConnection("localhost", self.port, context=self.tls, timeout=20)
            try:
                wanted = "&".join(f"{quote(k)}={quote(v)}" for k, v in sorted(query.items()))
                connection.request("GET", f"{path}?{wanted}", headers=self._sign(path, wanted))
                answer = connection.getresponse()
                body = answer.read()
            except OSError as error:
                failure = str(error)
            else:
                if answer.status == 200:
                    return body
                failure = f"{answer.status} {body[:200]!r}"
            finally:
                connection.close()
            time.sleep(0.5 * attempt)
        raise Failed(f"store {self.server} could not be asked about {path}: {failure}")

    def _sign(self, path, query):
        """AWS Signature Version 4 of a request without a body."""
        now = datetime.datetime.now(datetime.timezone.utc)
        moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        host = f"localhost:{self.port}"
        signed = "host;x-amz-content-sha256;x-amz-date"
        canonical = f"GET\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{EMPTY}\nx-amz-date:{moment}\n\n{signed}\n{EMPTY}"
        scope = f"{day}/eu-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (day, "eu-1", "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        return {
            "Host": host,
            "x-amz-date": moment,
            "x-amz-content-sha256": EMPTY,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={signed}, Signature={signature}",
        }


def quote(text):
    return urllib.parse.quote(text, safe="-_.~")
