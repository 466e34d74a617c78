# Weft's server with its model inside: it asks no network for anything, and writes to /tmp alone.
#
#   docker build --tag weft .
#   docker run --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 --env WEFT_API_KEYS weft

FROM python:3.12-slim AS installed
# PyTorch's usual build for x86-64 brings CUDA along, some gigabytes; an index of builds for the CPU can be named here.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/weft
ENV PATH=/opt/weft/bin:$PATH
# By itself, since it is most of the image and stays as it is when Weft changes.
COPY constraints.txt /source/
RUN pip install --constraint /source/constraints.txt torch
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --constraint /source/constraints.txt "/source[serve,knowledge]"
ENV WEFT_HOME=/opt/weft-home
RUN weft pull

FROM python:3.12-slim
COPY --from=installed /opt/weft /opt/weft
COPY --from=installed /opt/weft-home /opt/weft-home
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin weft
ENV PATH=/opt/weft/bin:$PATH \
    WEFT_HOME=/opt/weft-home \
    HF_HUB_OFFLINE=1 \
    HOME=/tmp
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["weft", "serve", "--host", "0.0.0.0"]
