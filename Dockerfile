# The operator's image: one program, and the PostgreSQL clients that its movers run.
#
# The build stage can be left out: with BINARY_FROM=prebuilt the program comes from the build
# context instead, and everything after that is the same.
ARG BASE=debian:trixie-slim
ARG RUST_BASE=rust:1-trixie
ARG BINARY_FROM=build

FROM ${RUST_BASE} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin helpdesk-operator \
    && cp target/release/helpdesk-operator /helpdesk-operator

FROM scratch AS prebuilt
COPY helpdesk-operator /helpdesk-operator

FROM ${BINARY_FROM} AS binary

FROM ${BASE}
# pg_dump refuses servers newer than itself, so the newest client comes first; where the base
# offers further majors, they are there too, below /usr/lib/postgresql/MAJOR/bin.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates postgresql-client \
        $(apt-cache search --names-only '^postgresql-client-[0-9]+$' | cut -d ' ' -f 1) \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log
COPY --from=binary /helpdesk-operator /usr/local/bin/helpdesk-operator
# A number, so that runAsNonRoot can be checked. Nothing writes to the root file system.
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/local/bin/helpdesk-operator"]
