# Request Tracker 5 as Debian packages it, behind Starman. Its configuration comes from files of the class: what the
# packages wrote would be read after it and win.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install -y --no-install-recommends request-tracker5 rt5-standalone rt5-db-postgresql rt5-clients \
        dbconfig-no-thanks msmtp-mta starman libnet-ssleay-perl \
    && rm -f /etc/request-tracker5/RT_SiteConfig.d/*.pm \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
USER 33:33
WORKDIR /
