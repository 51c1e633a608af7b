#!/usr/bin/env bash
# Looks the versions of requirements.lock up in a database of known vulnerabilities, for the Python that runs it: PyPI's, or
# with `-s osv` that of OSV.
#
#   tools/audit.sh [argument of pip-audit ...]
#
# Exit codes: 0 none is known, 1 one is, or a package cannot be looked up, 3 NOT AUDITED: no database answers here, or it
# knows nothing, as a mirror of PyPI does. PIP_AUDIT names another pip-audit than that of .runners/audit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
audit=${PIP_AUDIT:-.runners/audit/bin/pip-audit}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

not_audited() {
  echo "audit.sh: NOT AUDITED: $1. Run it where there is a network, before each release" >&2
  exit 3
}

if [ ! -x "$audit" ] && [ -z "${PIP_AUDIT:-}" ]; then
  "${PYTHON:-python3}" -m venv .runners/audit
  .runners/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 ||
    not_audited "pip-audit cannot be installed"
fi

# pip-audit takes a database that knows nothing for one that has nothing to say. So it is asked first for what has been
# known for years: CVE-2022-22817.
echo "pillow==9.0.0" >"$scratch/known.txt"
"$audit" --requirement "$scratch/known.txt" --no-deps --disable-pip --timeout 20 --progress-spinner off --format json "$@" \
  >"$scratch/known.json" 2>"$scratch/errors" || true
"${PYTHON:-python3}" - "$scratch/known.json" <<'P' && state=0 || state=$?
import json, sys
try:
    known = json.load(open(sys.argv[1]))["dependencies"]
except (ValueError, LookupError):
    sys.exit(2)
sys.exit(not any(one.get("vulns") for one in known))
P
case $state in
  0) ;;
  1) not_audited "the database that answers has no vulnerabilities in it" ;;
  *) not_audited "no database of vulnerabilities answers: $(tail -n 1 "$scratch/errors")" ;;
esac
"$audit" --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off "$@"
