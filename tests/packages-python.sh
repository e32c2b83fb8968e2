#!/bin/bash
# Makes target/venv: a Python with the stock gRPC client that stands in for grpcurl in the tests.
#
# Quick when the venv is already there for these requirements; fails loudly otherwise. Needs a package
# archive (Debian, for python3-venv) and PyPI, directly or through the mirror that pip is configured for.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${KRB_VENV:-target/venv}
requirements=tests/python/requirements.txt
stamp=$venv/requirements.installed

fail() { echo "packages-python.sh: $*" >&2; exit 1; }
cmp -s "$requirements" "$stamp" && exit 0

python=/usr/bin/python3
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    [ "$(id -u)" = 0 ] || fail "needs root to install python3-venv"
    command -v apt-get >/dev/null || fail "no apt-get here; install python3-venv by hand"
    export DEBIAN_FRONTEND=noninteractive
    install() { apt-get -o DPkg::Lock::Timeout=300 -qq install --yes --no-install-recommends python3 python3-venv </dev/null; }
    install >/dev/null 2>&1 || { apt-get -o DPkg::Lock::Timeout=300 -qq update && install; } || fail "could not install python3-venv"
fi

rm -rf "$venv"
mkdir -p "$(dirname "$venv")"
"$python" -m venv "$venv" || fail "could not make $venv"
"$venv/bin/pip" --quiet --disable-pip-version-check --no-input install --requirement "$requirements" </dev/null \
    || fail "could not install $requirements"
cp "$requirements" "$stamp"
