#!/usr/bin/env bash
# Builds Prism, Beam's portable runner, into .runners/prism, where the tests look for it, in the version that
# constraints.txt pins. Needs Go. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=v$(sed -n 's/^apache-beam==\([0-9.]*\).*>=.*/\1/p' constraints.txt)
directory=$PWD/.runners/prism
[ -x "$directory/prism" ] && [ "$(cat "$directory/version" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v go >/dev/null; then
  echo "WARNING: Prism was not built: 'go' is not on PATH. Install Go to run the tests on Prism" >&2
  exit 0
fi
echo "Building Prism $version (a few minutes the first time) ..." >&2
mkdir -p "$directory"
if ! GOBIN=$directory GOFLAGS='' go install "github.com/apache/beam/sdks/v2/go/cmd/prism@$version"; then
  echo "WARNING: Go could not build Prism; the tests on Prism cannot run" >&2
  exit 0
fi
echo "$version" >"$directory/version"
