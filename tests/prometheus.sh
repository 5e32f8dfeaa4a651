#!/usr/bin/env bash
# bash prometheus.sh DIR: build a Prometheus with a receiver of OTLP, DIR/prometheus. That of Debian 12 has none.
#
# Takes some minutes of processor time, and 2 GB for Go's caches.
set -euo pipefail

version=v0.316.0 # of the Go module; that of Prometheus is 3.16.0
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ "$(cat "$dir/.stamp" 2>/dev/null)" != "$version" ] || exit 0
# Without the many services that it can discover targets with.
GOBIN=$dir go install -tags remove_all_sd "github.com/prometheus/prometheus/cmd/prometheus@$version"
echo "$version" >"$dir/.stamp"
