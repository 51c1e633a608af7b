#!/usr/bin/env bash
# Installs Azurite, Microsoft's server of the Azure Blob Storage protocol for tests, into .runners/azurite, where the tests
# look for it. Needs Node and npm; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=3.37.0
folder=$PWD/.runners/azurite
[ "$(cat "$folder/version" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v npm >/dev/null; then
  echo "WARNING: no Azurite: installing it needs Node, and there is no 'npm' on PATH; tests on it cannot run" >&2
  exit 0
fi
echo "Installing Azurite $version (half a minute) ..." >&2
mkdir -p "$folder"
if ! npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error "azurite@$version" >/dev/null; then
  echo "WARNING: no Azurite: it could not be installed; tests on it cannot run" >&2
  exit 0
fi
echo "$version" >"$folder/version"
