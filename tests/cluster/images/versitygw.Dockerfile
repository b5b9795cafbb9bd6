ARG BASE=debian:trixie-slim
FROM ${BASE}
COPY versitygw /usr/local/bin/versitygw
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/versitygw"]
