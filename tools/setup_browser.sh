#!/usr/bin/env bash
# Installs the browser that tests/pipeline/report/test_report_browser.py drives: Debian's chromium and chromium-driver.
# Needs root. Does nothing if both are installed.
#
#   tools/setup_browser.sh
set -euo pipefail

missing() { ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; }

missing || exit 0
if ! command -v apt-get >/dev/null; then
  echo "setup_browser.sh: apt-get was not found; install chromium and chromedriver yourself" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup_browser.sh: not root; run this script as root, or run: apt-get install chromium chromium-driver" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null
if missing; then
  echo "setup_browser.sh: chromium or chromedriver is still not on the PATH" >&2
  exit 1
fi
chromium --version
