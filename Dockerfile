# Two images from one file: `--target api` (no torch, about 200 MB) and `--target worker` (torch, the default).
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_WAIT_POLICY=PASSIVE
WORKDIR /srv/fewbytes
RUN useradd --create-home --uid 1000 fewbytes && mkdir /data && chown fewbytes /data
COPY pyproject.toml requirements.lock README.md ./
COPY app app
COPY worker worker
COPY models models
COPY migrations migrations
ENV FEWBYTES_DATA_DIR=/data FEWBYTES_LOG_FORMAT=json
VOLUME /data

FROM base AS api
RUN pip install --constraint requirements.lock .
USER fewbytes
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# It listens beyond its container, so it starts only once there is a key: fewbytes keys create.
CMD ["fewbytes", "api", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS worker
RUN pip install --constraint requirements.lock '.[worker]'
USER fewbytes
CMD ["fewbytes", "worker"]
