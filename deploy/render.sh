#!/bin/bash
# render.sh DIR: renders each manifest of this directory from its source in kustomize/, into DIR.
#
# Any kubectl from 1.14 on will do. They differ in order and layout, never in the objects.
set -euo pipefail
out=${1:?usage: render.sh DIR}
source=$(cd "$(dirname "$0")" && pwd)/kustomize

# What is rendered: the manifest's name and its source.
rendered() {
    cat <<'LIST'
krb-broker base
krb-broker-up-to-1.20 up-to-1.20
psp psp
network-policy network-policy
node-isolation-probe node-isolation-probe
LIST
}

warnings=$(mktemp)
trap 'rm -f "$warnings"' EXIT
rendered | while read -r name from; do
    # newer ones call `bases` deprecated, older ones know nothing else
    kubectl kustomize "$source/$from" >"$out/.$name.yaml" 2>"$warnings" || { cat "$warnings" >&2; exit 1; }
    grep -v 'is deprecated' "$warnings" >&2 || true
    { echo "# Made by \`make manifests\` from kustomize/$from. Change that, not this."; cat "$out/.$name.yaml"; } >"$out/$name.yaml"
    rm "$out/.$name.yaml"
done
