# The mail intake's programs as Debian packages them: Postfix receives and sends, rspamd judges, Redis keeps what was
# learned. Their configuration comes from the chart.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN export DEBIAN_FRONTEND=noninteractive \
    && echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections \
    && apt-get update \
    && apt-get install -y --no-install-recommends postfix rspamd redis-server curl \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
WORKDIR /
