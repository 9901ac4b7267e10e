# The service, without PyTorch; docs/serve.md shows how it is run.
FROM python:3.13-slim

COPY constraints.txt pyproject.toml README.md LICENSE NOTICE /thawnet/
COPY src /thawnet/src
RUN pip install --no-cache-dir --constraint /thawnet/constraints.txt "/thawnet[serve,heic]"

# A number, as hosts that refuse root look for one.
USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["thawnet", "serve", "--host", "0.0.0.0"]
