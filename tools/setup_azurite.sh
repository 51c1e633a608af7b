#!/usr/bin/env bash
# Installs Azurite, Microsoft's test server for the Azure Blob Storage protocol, into .runners/azurite, where the tests
# look for it. Needs Node and npm. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=3.37.0
directory=$PWD/.runners/azurite
[ "$(cat "$directory/version" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v npm >/dev/null; then
  echo "WARNING: Azurite was not installed: 'npm' is not on PATH. Install Node to run the tests on Azurite" >&2
  exit 0
fi
echo "Installing Azurite $version (half a minute) ..." >&2
mkdir -p "$directory"
if ! npm install --prefix "$directory" --no-audit --no-fund --ignore-scripts --loglevel=error "azurite@$version" >/dev/null; then
  echo "WARNING: npm could not install Azurite; the tests on Azurite cannot run" >&2
  exit 0
fi
echo "$version" >"$directory/version"
