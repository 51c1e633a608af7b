#!/usr/bin/env bash
# Looks the versions of requirements.lock up in a database of known vulnerabilities, for the Python that runs it. Needs the network: PyPI's
# database, or with `-s osv` that of OSV. Fails for a vulnerability, and for a package that cannot be looked up.
#
#   tools/audit.sh [argument of pip-audit ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=.runners/audit
if [ ! -x "$folder/bin/pip-audit" ]; then
  "${PYTHON:-python3}" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
fi
exec "$folder/bin/pip-audit" --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off "$@"
