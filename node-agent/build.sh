#!/bin/sh
# build.sh OUT: builds the agent as a static program, puts it at OUT, and prints how it was built.
# It prefers musl; where rustc has no musl target it links glibc statically.
set -eu
out=${1:?usage: build.sh OUT}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-musl
flags=
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    target=x86_64-unknown-linux-gnu
    flags='-C target-feature=+crt-static'
elif ! command -v musl-gcc >/dev/null; then
    # ring has some C, which needs no C library: the machine's own compiler will do
    export CC_x86_64_unknown_linux_musl="${CC:-cc}"
fi
RUSTFLAGS="${RUSTFLAGS:-} $flags" cargo build --locked --quiet -p krb-node-agent --release --target "$target"

built=${CARGO_TARGET_DIR:-target}/$target/release/krb-node-agent
mkdir -p "$(dirname "$out")"
partial=$(dirname "$out")/.$(basename "$out").tmp
cp "$built" "$partial"
strip "$partial"
chmod 755 "$partial"
mv "$partial" "$out"
echo "$out: $target, static, $(wc -c <"$out") bytes"
