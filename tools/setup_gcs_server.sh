#!/usr/bin/env bash
# Builds fake-gcs-server, a Cloud Storage server of another project, into .runners/fake-gcs-server, where the tests look
# for it. Needs Go. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=v1.56.1
directory=$PWD/.runners/fake-gcs-server
[ -x "$directory/fake-gcs-server" ] && [ "$(cat "$directory/version" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v go >/dev/null; then
  echo "WARNING: fake-gcs-server was not built: 'go' is not on PATH. Install Go to run the tests on fake-gcs-server" >&2
  exit 0
fi
echo "Building fake-gcs-server $version (a few minutes the first time) ..." >&2
mkdir -p "$directory"
if ! GOBIN=$directory GOFLAGS='' go install "github.com/fsouza/fake-gcs-server@$version"; then
  echo "WARNING: Go could not build fake-gcs-server; the tests on fake-gcs-server cannot run" >&2
  exit 0
fi
echo "$version" >"$directory/version"
