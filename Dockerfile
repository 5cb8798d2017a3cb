# tallystick and everything its roles need, in one image: which role it is says the command (up, receiver, ingest, api, alerts run, migrate).
# What is installed stands in deploy/requirements.txt (`make image-lock`), so that two builds of one commit are the same; nothing is compiled.
ARG PYTHON=python:3.13.9-slim-trixie

FROM ${PYTHON} AS build
WORKDIR /src
RUN pip install --no-cache-dir --disable-pip-version-check hatchling==1.33.0
COPY pyproject.toml README.md LICENSE ./
COPY schema schema
COPY collectors collectors
COPY ingest ingest
COPY attribution attribution
COPY alerts alerts
COPY probes probes
COPY src src
RUN hatchling build -t wheel -d /wheels
COPY deploy/requirements.txt .
RUN python -m venv /opt/tallystick \
    && /opt/tallystick/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: -r requirements.txt \
    && /opt/tallystick/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /wheels/*.whl \
    && /opt/tallystick/bin/pip check \
    && /opt/tallystick/bin/pip uninstall --yes pip

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tallystick" \
    org.opencontainers.image.description="Observability and FinOps for language-model calls" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/tallystick/tallystick" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# Directories stand here with their owner: a volume that is mounted there for the first time takes both from the image.
RUN useradd --system --uid 10001 --no-create-home --home-dir /var/lib/tallystick tallystick \
    && install -d -o tallystick -g tallystick -m 700 /var/lib/tallystick /var/lib/tallystick-keys \
    && install -d -o tallystick -g tallystick -m 755 /var/lib/tallystick-prometheus
COPY --from=build /opt/tallystick /opt/tallystick
COPY --chmod=755 deploy/healthy.py /usr/local/bin/healthy
ENV PATH=/opt/tallystick/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TALLYSTICK_HOST=0.0.0.0 \
    TALLYSTICK_DATA=/var/lib/tallystick
USER tallystick
WORKDIR /var/lib/tallystick
VOLUME /var/lib/tallystick
EXPOSE 4317 4318 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["healthy", "http://127.0.0.1:4318/readyz"]
ENTRYPOINT ["tallystick"]
CMD ["up"]
