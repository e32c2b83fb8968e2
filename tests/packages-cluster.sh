#!/bin/bash
# Installs what the cluster tests run on: containerd, etcd and the small tools around them, from Debian.
#
# Only packages whose program is missing are installed, so a machine that already has one (a kubectl from
# elsewhere, say) keeps it. Starts no daemon. Quick when everything is there; fails loudly otherwise.
# Needs root and a Debian or Ubuntu with a package archive.
set -euo pipefail

# What must exist, and the package that brings it.
needed() {
    cat <<'LIST'
/usr/bin/etcd etcd-server
/usr/bin/containerd containerd
/usr/bin/ctr containerd
/usr/sbin/runc runc
/usr/lib/cni/bridge containernetworking-plugins
/bin/busybox busybox-static
/usr/sbin/iptables iptables
/usr/bin/socat socat
/usr/sbin/ethtool ethtool
/usr/sbin/conntrack conntrack
/usr/bin/kubectl kubernetes-client
/usr/bin/openssl openssl
/usr/bin/bc bc
/usr/bin/nsenter util-linux
/usr/bin/python3 python3
/sbin/ip iproute2
LIST
}

missing_packages() {
    local path package
    needed | while read -r path package; do
        [ -x "$path" ] && continue
        case $path in */bin/* | */sbin/*) command -v "$(basename "$path")" >/dev/null && continue ;; esac
        echo "$package"
    done | sort -u
}

packages=$(missing_packages)
[ -n "$packages" ] || exit 0

fail() { echo "packages-cluster.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root to install:" $packages
command -v apt-get >/dev/null || fail "no apt-get here; install by hand:" $packages

# A package that starts its daemon on installation would sit on the machine's ports; policy-rc.d says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
install() {
    apt-get -o DPkg::Lock::Timeout=300 -qq install --yes --no-install-recommends $packages </dev/null
}
echo "packages-cluster.sh: installing" $packages
install >/dev/null 2>&1 || { apt-get -o DPkg::Lock::Timeout=300 -qq update && install; } \
    || fail "could not install:" $packages

left=$(missing_packages)
[ -z "$left" ] || fail "still missing after installation:" $left
