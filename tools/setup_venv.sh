#!/usr/bin/env bash
# Makes .venv with the pinned versions, and the project in it, editable. Does nothing when it is up to date.
#
#   tools/setup_venv.sh EXTRAS        (comma-separated, such as launcher,demo,test)
#
# PYTHON names another interpreter, VENV another folder than .venv.
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
wanted=$(cat pyproject.toml setup.py constraints.txt | cksum)
for extra in ${extras//,/ }; do
  grep -qsxF "$extra $wanted" "$stamp" || missing=yes
done
[ -n "${missing:-}" ] || exit 0

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing beamlabel[$extras] into $venv (a few minutes the first time) ..." >&2
# TensorFlow starts in a third of the time where its bytecode was compiled at install.
env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --compile \
  --constraint constraints.txt --editable ".[$extras]"
for extra in ${extras//,/ }; do echo "$extra $wanted" >>"$stamp"; done
