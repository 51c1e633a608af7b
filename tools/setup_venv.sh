#!/usr/bin/env bash
# Creates .venv with the versions and hashes of requirements.lock, and installs the project in it, editable. Does
# nothing if it is up to date.
#
#   tools/setup_venv.sh EXTRAS        (comma-separated, such as launcher,demo,test)
#
# PYTHON names another interpreter, VENV a directory other than .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras=$1
python=${PYTHON:-python3}
venv=${VENV:-.venv}

"$python" - <<'P' || exit 2
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"beamlabel needs Python 3.10 to 3.13, not {sys.version.split()[0]}; name one with PYTHON=/path/to/python3")
P

stamp=$venv/.installed
wanted=$(cat pyproject.toml setup.py requirements.lock | cksum)
for extra in ${extras//,/ }; do
  grep -qsxF "$extra $wanted" "$stamp" || missing=yes
done
[ -n "${missing:-}" ] || exit 0

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing beamlabel[$extras] into $venv (a few minutes the first time) ..." >&2
# Only files whose hash is in the lock are installed: the requirements of beamlabel and of its build.
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
"$venv/bin/python" tools/lock_requirements.py build >"$parts/build.txt"
"$venv/bin/python" tools/lock_requirements.py "build,base,$extras" >"$parts/needed.txt"
# TensorFlow starts in a third of the time if its bytecode was compiled during installation.
install() {
  env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --compile \
    --no-deps --no-build-isolation "$@"
}
install --require-hashes --requirement "$parts/build.txt"
install --require-hashes --requirement "$parts/needed.txt"
install --editable .
for extra in ${extras//,/ }; do echo "$extra $wanted" >>"$stamp"; done
