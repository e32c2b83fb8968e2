# The node agent and the driver, both static, and nothing else. From the repository's root:
#   docker build -f deploy/docker/node-agent.Dockerfile -t krb-node-agent:0.1.0 .
ARG RUST=1.95
FROM docker.io/library/rust:${RUST}-bookworm AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends musl-tools \
 && rustup target add x86_64-unknown-linux-musl
WORKDIR /src
COPY . .
RUN sh flexvolume/build.sh /out/krb-flexvolume && sh node-agent/build.sh /out/krb-node-agent

# Root, since files get their pods' owners: its DaemonSet takes all capabilities from it but four.
FROM scratch
COPY --from=build /out/krb-node-agent /usr/bin/krb-node-agent
COPY --from=build /out/krb-flexvolume /usr/lib/krb-broker/krb-flexvolume
USER 0:0
ENTRYPOINT ["/usr/bin/krb-node-agent"]
CMD ["--config", "/etc/krb-broker/agent.toml"]
