# Two stages: the first installs as CI does in a clean virtual environment, the second only runs.
# To pin the base image, replace the tag by the digest that `docker pull python:3.11-slim` prints.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/sessionapi
COPY requirements.lock requirements-build.lock ./
RUN /opt/sessionapi/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY . .
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /dist . \
 && /opt/sessionapi/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.11-slim
RUN groupadd --gid 10001 sessionapi && useradd --uid 10001 --gid 10001 --create-home --home-dir /data sessionapi
COPY --from=build /opt/sessionapi /opt/sessionapi
USER 10001:10001
WORKDIR /data
ENV SESSIONAPI_DATA_DIR=/data PORT=8000
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["/opt/sessionapi/bin/python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=2)"]
ENTRYPOINT ["/opt/sessionapi/bin/sessionapi"]
CMD ["serve", "--host", "0.0.0.0"]
