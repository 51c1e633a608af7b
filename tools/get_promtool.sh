#!/usr/bin/env bash
# Extracts promtool from Debian's package prometheus, without installing it, into .runners/promtool:
# tests/project/test_deploy_nightly.py checks the alerts of deploy/nightly/ with it. Needs Debian's apt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$PWD/.runners/promtool

[ ! -x "$target/promtool" ] || exit 0
mkdir -p "$target"
part=$(mktemp -d "$target/part.XXXXXX")
trap 'rm -rf "$part"' EXIT
cd "$part"
apt-get download --quiet prometheus || { apt-get update --quiet && apt-get download --quiet prometheus; }
dpkg --extract ./*.deb .
mv "$part/usr/bin/promtool" "$target/promtool"
