# The service alone: captions, tags and corrections over HTTP, without torch and TensorFlow.
# With --build-arg STORE_DRIVER=s3fs (or adlfs, gcsfs) it can mirror contributions there.
#   docker build -t lcm . && docker run -p 127.0.0.1:8000:8000 -e LCM_TOKEN=… -v lcm:/data lcm

FROM python:3.11-slim
ARG STORE_DRIVER
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[serve,words,tower]' $STORE_DRIVER && rm -rf /src
RUN useradd --create-home lcm && mkdir /data && chown lcm /data
USER lcm
WORKDIR /data
ENV LCM_HOME=/data LCM_HOST=0.0.0.0 LCM_PORT=8000
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=10s CMD \
    ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/healthz')"]
CMD ["lcm", "serve"]
