# yoda for the processor: docker build -t yoda . && docker run --rm -v "$PWD:/work" yoda upscale photo.jpg
FROM python:3.13-slim
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src
# Results belong to who runs it: docker run --user "$(id -u):$(id -g)" …
ENV YODA_CACHE_DIR=/cache XDG_CACHE_HOME=/cache HOME=/tmp
RUN mkdir -m 777 /cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["yoda"]
CMD ["--help"]
