ARG BASE=debian:trixie-slim
FROM ${BASE}
ARG MAJOR=17
# Compiling queries at run time is off here, and its library would be half of what every start unpacks.
# The user comes first, so that its number is ours to choose: files on a host path outlive an image.
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --no-create-home postgres \
    && apt-get update \
    && apt-get install -y --no-install-recommends postgresql-${MAJOR} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/lib/postgresql/${MAJOR} /usr/share/doc /usr/share/man \
        /usr/lib/postgresql/${MAJOR}/lib/llvmjit.so /usr/lib/postgresql/${MAJOR}/lib/bitcode /usr/lib/*/libLLVM*
ENV PATH=/usr/lib/postgresql/${MAJOR}/bin:/usr/local/bin:/usr/bin:/bin
USER 999:999
# "Fast": TERM would wait for every client to leave.
STOPSIGNAL SIGINT
