#!/usr/bin/env bash
# Builds Prism, Beam's portable runner, into .runners/prism, where the tests look for it. Needs Go; does nothing when
# it is up to date. Of the version that constraints.txt pins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=v$(sed -n 's/^apache-beam==\([0-9.]*\).*>=.*/\1/p' constraints.txt)
folder=$PWD/.runners/prism
[ -x "$folder/prism" ] && [ "$(cat "$folder/version" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v go >/dev/null; then
  echo "WARNING: no Prism: building it needs Go, and there is no 'go' on PATH; tests of it cannot run" >&2
  exit 0
fi
echo "Building Prism $version (a few minutes the first time) ..." >&2
mkdir -p "$folder"
if ! GOBIN=$folder GOFLAGS='' go install "github.com/apache/beam/sdks/v2/go/cmd/prism@$version"; then
  echo "WARNING: no Prism: it could not be built; tests of it cannot run" >&2
  exit 0
fi
echo "$version" >"$folder/version"
