# django-helpdesk behind gunicorn: Python from Debian, and in packages/ what the wheels of django-helpdesk.txt hold. Its
# configuration comes from files of the class.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install -y --no-install-recommends python3 media-types ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
COPY packages /usr/local/lib/helpdesk
ENV PYTHONPATH=/usr/local/lib/helpdesk PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /
