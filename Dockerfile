# syntax=docker/dockerfile:1
#   docker build --tag headworks .
#   docker run --publish 127.0.0.1:7400:7400 --volume headworks:/var/lib/headworks headworks
FROM rust:1.95-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin headworks && mkdir -m 700 /data

# glibc and libgcc, no shell: the user is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/headworks /usr/bin/headworks
COPY --from=build --chown=65532:65532 /data /var/lib/headworks
# Beyond the container the port is reached as far as it is published; a source asks nobody for a password.
ENV HEADWORKS__DAEMON__DATA_DIR=/var/lib/headworks \
    HEADWORKS__LOG__FORMAT=json \
    HEADWORKS__SOURCES__TCP__LISTEN=0.0.0.0:7400 \
    HEADWORKS__SOURCES__TCP__ALLOW_BEYOND_LOOPBACK=true
USER 65532:65532
WORKDIR /var/lib/headworks
VOLUME /var/lib/headworks
EXPOSE 7400
# Drains within daemon.drain_deadline: give `docker stop` as long (--time 60).
STOPSIGNAL SIGTERM
# Whether it does its work, asked on its control socket.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["/usr/bin/headworks", "ready", "--data", "/var/lib/headworks"]
ENTRYPOINT ["/usr/bin/headworks"]
CMD ["run"]
