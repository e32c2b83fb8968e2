#!/bin/sh
# Brings the Debian packages that the real-realm tests use.
#
# The shared libraries are installed, and `ip` where there is none. The daemons and tools (krb5kdc, kadmind, kinit, ...) are only
# unpacked, under target/packages/, so that the system gets no KDC, no service and no /etc/krb5.conf.
#
# Needs Debian 12 (or alike) with apt. Needs root only while a library is missing or the package
# lists are absent. Runs in milliseconds when everything is there. Prints nothing unless it works.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
dest=$root/target/packages
libraries='libkrb5-3 libgssapi-krb5-2 libkadm5clnt-mit12 libkadm5srv-mit12 libkdb5-10 libgssrpc4
    libverto1 libverto-libev1 libev4'
unpacked='krb5-kdc krb5-admin-server krb5-user krb5-gss-samples krb5-kpropd krb5-multidev'

say() { echo "tests/packages.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

missing_libraries() {
    for package in $libraries; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
            'install ok installed') ;;
            *) echo "$package" ;;
        esac
    done
    command -v ip >/dev/null || echo iproute2 # nodes with a network of their own
}

missing_unpacked() {
    for package in $unpacked; do
        [ -e "$dest/.unpacked-$package" ] || echo "$package"
    done
}

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null \
    || fail 'needs apt and dpkg (Debian 12)'
if [ -z "$(missing_libraries)" ] && [ -z "$(missing_unpacked)" ]; then
    exit 0
fi

mkdir -p "$dest"
exec 9>"$dest/.lock"
flock 9 # several test programs may start at once

as_root() { [ "$(id -u)" -eq 0 ] || fail "needs root to $1: run it once as root"; }

update_lists() {
    as_root 'run apt-get update'
    apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || fail 'apt-get update failed'
}

# Lists that are absent or out of date show as a failed download: update and try once more.
with_fresh_lists() {
    "$@" || { say 'updating the package lists'; update_lists; "$@"; }
}

install_libraries() {
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends $missing >&2
}

unpack_all() {
    for package in $(missing_unpacked); do
        say "unpacking $package"
        rm -rf "$dest/.fetch"
        mkdir "$dest/.fetch"
        (cd "$dest/.fetch" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2) \
            || return 1
        dpkg -x "$dest/.fetch/"*.deb "$dest" || return 1
        : >"$dest/.unpacked-$package"
    done
    rm -rf "$dest/.fetch"
}

missing=$(missing_libraries)
if [ -n "$missing" ]; then
    as_root 'install libraries'
    say 'installing' $missing
    with_fresh_lists install_libraries || fail "could not install $missing"
fi
with_fresh_lists unpack_all || fail "could not fetch $(missing_unpacked | tr '\n' ' ')"
for tool in sbin/krb5kdc sbin/kadmind sbin/kadmin.local sbin/kdb5_util bin/kinit bin/klist bin/kvno; do
    [ -x "$dest/usr/$tool" ] || fail "$dest/usr/$tool is not there after unpacking"
done
