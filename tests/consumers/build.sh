#!/usr/bin/env bash
# bash build.sh DIR: build the example consumers (examples/consumers) and the producer of unusual frames
# (odd), and install a client of StatsD (hotshots), each into a directory of DIR. Those whose tools are missing are left out.
#
# Exit status: 0 if all are up to date, 2 for wrong arguments, 3 with one line on standard error for
# each program that is not built, 1 if a build failed.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: bash build.sh DIR" >&2
    exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
programs=(go javascript java rust python odd hotshots)

# The stamp identifies the sources of all programs.
cd "$root"
stamp=$(find examples/consumers tests/consumers proto -name target -prune -o -name node_modules -prune -o -type f -print |
    LC_ALL=C sort | xargs cat tests/protoc.sh | cksum)
outdated=()
for program in "${programs[@]}"; do
    [ "$(cat "$dir/$program/.stamp" 2>/dev/null)" = "$stamp" ] || outdated+=("$program")
done
[ ${#outdated[@]} -gt 0 ] || exit 0
rm -rf "${outdated[@]/#/$dir/}"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
. tests/protoc.sh
if find_protoc "$scratch"; then
    mkdir "$scratch/bin"
    printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$PROTOC" "${PROTOC_INCLUDE:+-I '$PROTOC_INCLUDE'}" >"$scratch/bin/protoc"
    chmod +x "$scratch/bin/protoc"
    PATH=$scratch/bin:$PATH
fi

export GOFLAGS="${GOFLAGS:-} -buildvcs=false"

# tools PROGRAM: print the tools that a program needs.
tools() {
    case $1 in
    go) echo go protoc ;;
    javascript) echo npm node protoc ;;
    java) echo mvn javac ;;
    rust) echo cargo protoc ;;
    python) echo protoc ;;
    odd) echo go ;;
    hotshots) echo npm node ;;
    esac
}

# The programs are built in a copy of the sources, with the same relative paths.
target=$here/target
examples=$target/examples/consumers
mkdir -p "$examples" "$target/proto"
cp -R examples/consumers/. "$examples"
cp -R proto/. "$target/proto"

# build_PROGRAM INTO: build a program, and put what it needs to run into a new directory, mostly with the
# commands that the source names.

build_go() {
    cd "$examples/go"
    GOBIN=$scratch/bin go install google.golang.org/protobuf/cmd/protoc-gen-go
    protoc --proto_path=../../../proto --go_out=. --go_opt=paths=source_relative txmetrics_tcp/event.proto
    go build -o "$1/consume" .
}

build_javascript() {
    cd "$examples/javascript"
    npm install --no-package-lock --no-audit --no-fund
    protoc --proto_path=../../../proto --include_imports --descriptor_set_out=event.binpb txmetrics_tcp/event.proto
    cp -R consume.mjs event.binpb package.json node_modules "$1"
}

build_java() {
    cd "$examples/java"
    mvn --batch-mode --no-transfer-progress compile dependency:copy-dependencies
    cp -R target/classes target/dependency "$1"
}

build_rust() {
    cd "$examples/rust"
    # The programs of tests/rust have most dependencies in common.
    CARGO_TARGET_DIR=$root/tests/rust/target cargo build --release
    cp "$root/tests/rust/target/release/consume" "$1"
}

build_python() {
    cd "$examples/python"
    protoc --proto_path=../../../proto --python_out=. txmetrics_tcp/event.proto
    cp -R consume.py txmetrics_tcp "$1"
    # A package, so that it takes precedence over an installed txmetrics_tcp.
    touch "$1/txmetrics_tcp/__init__.py"
}

build_odd() {
    cd "$here/odd"
    go build -o "$1/odd" .
}

build_hotshots() {
    cp "$here/hotshots/package.json" "$here/hotshots/send.js" "$1"
    cd "$1"
    npm install --no-package-lock --no-audit --no-fund --omit=optional
}

# build PROGRAM: build a program, and replace its directory in DIR.
build() {
    local new=$dir/.$1.new
    rm -rf "$new"
    mkdir "$new"
    "build_$1" "$new"
    echo "$stamp" >"$new/.stamp"
    mv "$new" "$dir/$1"
}

# Each in its own process, because downloads take most of the time.
status=0
declare -A running=()
for program in "${outdated[@]}"; do
    missing=
    for tool in $(tools "$program"); do
        command -v "$tool" >/dev/null && { [ "$tool" != protoc ] || [ -x "$scratch/bin/protoc" ]; } || missing=$tool
    done
    if [ -n "$missing" ]; then
        [ "$missing" != protoc ] || missing=$protoc_name
        echo "build.sh: $program is not built; missing: $missing" >&2
        status=3
    else
        (build "$program") >"$scratch/$program.log" 2>&1 &
        running[$program]=$!
    fi
done
for program in "${!running[@]}"; do
    if ! wait "${running[$program]}"; then
        echo "build.sh: cannot build $program:" >&2
        cat "$scratch/$program.log" >&2
        status=1
    fi
done
exit "$status"
