# Two stages: the first installs as CI does in a clean virtual environment, the second only runs.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/sessionapi
COPY requirements.lock .
RUN /opt/sessionapi/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN /opt/sessionapi/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --system --create-home --home-dir /data sessionapi
COPY --from=build /opt/sessionapi /opt/sessionapi
USER sessionapi
WORKDIR /data
ENV SESSIONAPI_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["/opt/sessionapi/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["/opt/sessionapi/bin/sessionapi"]
CMD ["serve", "--host", "0.0.0.0"]
