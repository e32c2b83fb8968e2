#!/bin/bash
# cluster-binaries.sh SCRIPTS OUT: unpacks the Kubernetes binaries that lie beside the cluster's scripts.
#
# Quick when they are there already. Without scripts, or without an archive beside them, there is nothing to
# do: it says so, and the cluster tests will say loudly that they did not run.
set -euo pipefail
scripts=$1
out=$2

fail() { echo "cluster-binaries.sh: $*" >&2; exit 1; }
complete() {
    local part
    for part in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
        [ -x "$1/$part" ] || return 1
    done
}

complete "$out" && exit 0
shopt -s nullglob
archives=("$scripts"/k8s-*.tar.xz)
if [ ${#archives[@]} = 0 ]; then
    echo "cluster-binaries.sh: no k8s-*.tar.xz in $scripts: nothing to unpack"
    exit 0
fi
[ ${#archives[@]} = 1 ] || fail "more than one archive: ${archives[*]}"

# Unpacked aside and renamed, so that a run cut short leaves no half of it.
rm -rf "$out.partial"
mkdir -p "$out.partial"
tar -xJf "${archives[0]}" -C "$out.partial" || fail "can't unpack ${archives[0]} (is xz-utils there?)"
complete "$out.partial" || fail "${archives[0]} does not hold all four binaries"
rm -rf "$out"
mv "$out.partial" "$out"
