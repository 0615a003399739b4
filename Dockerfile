# The service alone: captions, tags and corrections over HTTP, without torch and TensorFlow.
# With --build-arg STORE_DRIVER=s3fs (or adlfs, gcsfs) it can mirror contributions there.
#   docker build -t lcm . && docker run -p 127.0.0.1:8000:8000 -e LCM_TOKEN=… -v lcm:/data lcm
# The image encoder is made from its weights in a stage of its own, which needs torch and is thrown away; with
# --build-arg PIP_EXTRA_INDEX_URL=…, the CPU index that PyTorch's install page names, that stage takes gigabytes less.

FROM python:3.11-slim AS encoder
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[encoder]'
RUN LCM_CACHE=/cache python -c "from lcm.features.encoders import load_encoder; load_encoder('efficientnet_lite2')"

FROM python:3.11-slim
ARG STORE_DRIVER
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[serve,words]' $STORE_DRIVER && rm -rf /src
COPY --from=encoder /cache /opt/lcm/cache
RUN useradd --create-home lcm && mkdir /data && chown lcm /data
USER lcm
WORKDIR /data
ENV LCM_HOME=/data LCM_CACHE=/opt/lcm/cache LCM_HOST=0.0.0.0 LCM_PORT=8000
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=10s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
CMD ["lcm", "serve"]
