#!/usr/bin/env bash
# bash build.sh DIR: build the Rust programs of the interop tests and put them into DIR.
#
# Exit status: 0 if the programs are up to date, 2 for wrong arguments, 3 with one line on standard
# error if cargo or protoc is missing, any other if the build failed.
set -euo pipefail

observer=0.5.1

if [ $# -ne 1 ]; then
    echo "usage: bash build.sh DIR" >&2
    exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
programs=(receive serve metrics-observer)

# The stamp identifies the sources of the programs in DIR.
stamp=$(cd "$here" && cat build.sh Cargo.toml src/bin/*.rs | cksum)
built() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$dir/$program" ] || return 1
    done
    [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ]
}
if built; then
    exit 0
fi

missing() {
    echo "build.sh: missing: $1" >&2
    exit 3
}
command -v cargo >/dev/null || missing "cargo (the Rust toolchain)"

# The build of two dependencies calls protoc on a file that imports timestamp.proto.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
. "$here/../protoc.sh"
find_protoc "$scratch" || missing "$protoc_name"

# Always build in the same directory, which cargo locks, whatever the caller's CARGO_TARGET_DIR.
target="$here/target"
export CARGO_TARGET_DIR="$target"
cargo build --release --manifest-path "$here/Cargo.toml"
cargo install metrics-observer --version "$observer" --locked --root "$target/observer"

# Replaced with mv, which works even while an old program runs.
for program in "$target/release/receive" "$target/release/serve" \
    "$target/observer/bin/metrics-observer"; do
    name=$(basename "$program")
    cp "$program" "$dir/.$name.new"
    mv -f "$dir/.$name.new" "$dir/$name"
done
printf '%s\n' "$stamp" >"$dir/.stamp"
