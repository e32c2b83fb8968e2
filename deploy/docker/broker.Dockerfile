# The broker and its webhook. From the repository's root:
#   docker build -f deploy/docker/broker.Dockerfile -t krb-broker:0.1.0 .
ARG RUST=1.95
FROM docker.io/library/rust:${RUST}-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p krb-broker --bin krb-broker \
 && strip -o /krb-broker target/release/krb-broker

# The same Debian as above: the broker opens this libkadm5clnt_mit.so.12 at run time. What that opens in turn (GSS-API,
# libkrb5 and its preauthentication plug-ins) comes as its dependencies. No program here is setuid.
FROM docker.io/library/debian:12-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends libkadm5clnt-mit12 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && groupadd --gid 10750 krb-broker \
 && useradd --uid 10750 --gid 10750 --home-dir /nonexistent --shell /usr/sbin/nologin krb-broker \
 && groupadd --gid 10751 krb-broker-admission \
 && useradd --uid 10751 --gid 10751 --home-dir /nonexistent --shell /usr/sbin/nologin krb-broker-admission
COPY --from=build /krb-broker /usr/bin/krb-broker
USER 10750:10750
ENTRYPOINT ["/usr/bin/krb-broker"]
CMD ["serve", "--config", "/etc/krb-broker/config/broker.toml"]
