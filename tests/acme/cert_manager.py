#!/usr/bin/env python3
"""Plays cert-manager's part for one Certificate: answers an ACME server by HTTP-01 through a route in the tenant's namespace,
as cert-manager's solver gatewayHTTPRoute does, and writes the Secret that the Certificate names.

Usage: cert_manager.py DIRECTORY CA GATEWAY MACHINE NAMESPACE CERTIFICATE
DIRECTORY is the URL of the ACME directory, CA the authority of that server, GATEWAY the address at which challenges are asked
for, MACHINE the address at which pods reach this program.
"""
import http.server
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import josepy
from acme import challenges, client, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

USER = "system:serviceaccount:cert-manager:cert-manager"
SOLVER = "cm-acme-http-solver"


def kubectl(*arguments, body=None):
    """As cert-manager, with the admission policies that hold for it."""
    command = ["kubectl", "--as", USER, *arguments]
    if body is not None:
        command += ["--filename", "-"]
    done = subprocess.run(command, input=body and json.dumps(body), text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def main():
    directory, authority, gateway, machine, namespace, name = sys.argv[1:]
    certificate = json.loads(kubectl("--namespace", namespace, "get", "certificate", name, "--output", "json"))
    spec = certificate["spec"]
    issuer = json.loads(kubectl("get", "clusterissuer", spec["issuerRef"]["name"], "--output", "json"))
    parents = issuer["spec"]["acme"]["solvers"][0]["http01"]["gatewayHTTPRoute"]["parentRefs"]

    account = josepy.JWKRSA(key=rsa.generate_private_key(65537, 2048))
    network = client.ClientNetwork(account, verify_ssl=authority)
    server = client.ClientV2(client.ClientV2.get_directory(directory, network), network)
    server.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))

    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in spec["dnsNames"]])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spec["dnsNames"][0])]))
    request = request.add_extension(names, critical=False).sign(key, hashes.SHA256())
    order = server.new_order(request.public_bytes(serialization.Encoding.PEM))
    for authorization in order.authorizations:
        solve(server, account, authorization, parents, gateway, machine, namespace)
    chain = server.poll_and_finalize(order).fullchain_pem
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    template = spec.get("secretTemplate", {})
    kubectl("--namespace", namespace, "apply", "--server-side", "--field-manager", "cert-manager", body={
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "stringData": {"tls.crt": chain, "tls.key": pem},
        "metadata": {"name": spec["secretName"], "labels": template.get("labels", {}),
                     "annotations": {"cert-manager.io/certificate-name": name, **template.get("annotations", {})}}})
    kubectl("--namespace", namespace, "delete", "httproute,service,endpointslice", "--selector", f"acme.cert-manager.io/{SOLVER}=true")


def solve(server, account, authorization, parents, gateway, machine, namespace):
    """Answers one challenge, as soon as the route leads here."""
    host = authorization.body.identifier.value
    challenge = next(one for one in authorization.body.challenges if isinstance(one.chall, challenges.HTTP01))
    response, content = challenge.chall.response_and_validation(account)

    class Solver(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    listener = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Solver)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    metadata = {"name": SOLVER, "labels": {f"acme.cert-manager.io/{SOLVER}": "true"}}
    port = listener.server_address[1]
    objects = [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"name": "http", "port": 8089}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {**metadata, "labels": {**metadata["labels"], "kubernetes.io/service-name": SOLVER}},
         "endpoints": [{"addresses": [machine], "conditions": {"ready": True}}], "ports": [{"name": "http", "port": port}]},
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata,
         "spec": {"hostnames": [host], "parentRefs": parents, "rules": [
             {"matches": [{"path": {"type": "Exact", "value": challenge.chall.path}}],
              "backendRefs": [{"name": SOLVER, "port": 8089}]}]}},
    ]
    for one in objects:
        kubectl("--namespace", namespace, "apply", "--server-side", "--field-manager", "cert-manager", body=one)
    url = urllib.request.Request(f"http://{gateway}{challenge.chall.path}", headers={"Host": host})
    until = time.monotonic() + 60
    while True:
        try:
            if urllib.request.urlopen(url, timeout=5).read() == content.encode():
                break
        except (urllib.error.URLError, TimeoutError):
            pass
        if time.monotonic() > until:
            sys.exit(f"the challenge of {host} is not reached through the gateway")
        time.sleep(0.2)
    server.answer_challenge(challenge, response)


if __name__ == "__main__":
    main()
