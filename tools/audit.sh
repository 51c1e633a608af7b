#!/usr/bin/env bash
# Looks up the versions of requirements.lock in a database of known vulnerabilities, for the Python that runs it: PyPI's
# database, or OSV's with `-s osv`.
#
#   tools/audit.sh [argument of pip-audit ...]
#
# Exit codes: 0: no vulnerability is known. 1: one is known, or a package cannot be looked up. 3: NOT AUDITED: no
# database answers, or the database is empty, like that of a mirror of PyPI. PIP_AUDIT names a pip-audit other than that
# of .runners/audit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
audit=${PIP_AUDIT:-.runners/audit/bin/pip-audit}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

not_audited() {
  echo "audit.sh: NOT AUDITED: $1. Run it on a machine with a network before each release" >&2
  exit 3
}

if [ ! -x "$audit" ] && [ -z "${PIP_AUDIT:-}" ]; then
  "${PYTHON:-python3}" -m venv .runners/audit
  .runners/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 ||
    not_audited "pip-audit cannot be installed"
fi

# pip-audit cannot tell an empty database from one without findings. So it first looks up a vulnerability that has been
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
