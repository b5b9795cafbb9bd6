# PostgreSQL servers of other major versions; which one runs is for PATH to say.
ARG BASE=debian:trixie-slim
FROM ${BASE}
# The servers come without clients.
ARG CLIENT=17
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --no-create-home postgres \
    && apt-get update \
    && apt-get install -y --no-install-recommends postgresql-client-${CLIENT} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
COPY servers /opt/postgresql
USER 999:999
# "Fast": TERM would wait for every client to leave.
STOPSIGNAL SIGINT
