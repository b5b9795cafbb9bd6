"""Checks a certificate of deletion: the facts that are signed, their hash, and the signature of the installation's key."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

from cluster import OPERATOR, Failed

# What comes before the 32 bytes of an Ed25519 public key, in DER.
PUBLIC_KEY = bytes.fromhex("302a300506032b6570032100")


def verify(cluster, account):
    """The facts of an account's certificate; fails unless this installation signed them."""
    certificate = cluster.status(account).get("certificate")
    if not certificate:
        raise Failed(f"{account} is Expired without a certificate")
    installation = cluster.secret(OPERATOR, "installation")
    signed = {key: value for key, value in certificate.items() if key not in ("sha256", "signature", "note")}
    signed |= {"accountUID": cluster.accounts[account]["metadata"]["uid"], "installation": installation["id"].decode()}
    facts = json.dumps(signed, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    if hashlib.sha256(facts.encode()).hexdigest() != certificate["sha256"]:
        raise Failed(f"the certificate of {account} is about something else than {facts}")
    folder = Path(cluster.scratch.name)
    # The public half stands at the end of the key's PKCS #8.
    (folder / "public.der").write_bytes(PUBLIC_KEY + installation["signing.pk8"][-32:])
    (folder / "facts").write_text(facts)
    (folder / "signature").write_bytes(base64.b64decode(certificate["signature"]))
    command = "openssl pkeyutl -verify -pubin -keyform DER -inkey public.der -rawin -in facts -sigfile signature"
    checked = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
    if checked.returncode != 0:
        raise Failed(f"the signature of {account}'s certificate is not this installation's: {checked.stdout}{checked.stderr}")
    return facts
