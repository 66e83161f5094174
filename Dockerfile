# jaxinpaint serve on a CPU:
#   docker build -t jaxinpaint .
#   docker run --rm -p 127.0.0.1:8000:8000 -e JAXINPAINT_TOKEN=... --read-only --tmpfs /tmp --tmpfs /home/jaxinpaint jaxinpaint
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 JAX_PLATFORMS=cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY jaxinpaint jaxinpaint
# What is installed is this folder, whose pyproject.toml says which versions it works with.
# hadolint ignore=DL3013
RUN pip install '.[serve]' \
  && rm -rf /src/* \
  && useradd --create-home --uid 10001 jaxinpaint

USER 10001
WORKDIR /home/jaxinpaint
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/api/v1/health')"]
ENTRYPOINT ["jaxinpaint", "serve", "--host", "0.0.0.0"]
