FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# TLS towards Kafka is built from packaged sources of OpenSSL, which need the perl and the compiler of this image.
# A cache mount is no part of a layer, so the program is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p api --features tls \
    && .ci/split-symbols target/release/orderlog /out

# The program and its symbols, for a debugger or a profiler, as files:
# docker build --target artifacts --output out .
FROM scratch AS artifacts
COPY --from=build /out/ /

# The Debian of the build image: the program is linked to its C library.
FROM debian:bookworm-slim
# Roots of trust for the payment gateway, mail and token keys; curl for the health check. A new volume takes its owner
# from the directory it covers.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home orderlog \
    && install --directory --owner=orderlog --group=orderlog --mode=700 /data
COPY --from=build /out/orderlog /usr/local/bin/orderlog

USER orderlog
WORKDIR /data
ENV DATA_DIR=/data LISTEN_ADDR=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--show-error", "--output", "/dev/null", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["orderlog"]
CMD ["serve"]
