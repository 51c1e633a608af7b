#!/usr/bin/env bash
# Builds the boot program of Beam's Python containers, /opt/apache/beam/boot there, into .runners/beam-boot/VERSION/:
# tests/project/test_deploy_flink.py runs a job through it. Needs Go.
#
#   tools/get_beam_boot.sh VERSION        (Beam's, such as 2.77.0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$PWD/.runners/beam-boot/$1

[ ! -x "$target/boot" ] || exit 0
mkdir -p "$target"
part=$(mktemp -d "$target/part.XXXXXX")
trap 'rm -rf "$part"' EXIT
GOBIN=$part go install "github.com/apache/beam/sdks/v2/python/container@v$1"
mv "$part/container" "$target/boot"
