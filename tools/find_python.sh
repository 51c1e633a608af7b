#!/usr/bin/env bash
# Prints the path of a Python interpreter of the given version: from PATH, or from pyenv.
#
#   tools/find_python.sh 3.13
set -euo pipefail
version=$1
candidates=("python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python)
for candidate in "${candidates[@]}"; do
  if found=$("$candidate" -c 'import sys; print(sys.executable, "%d.%d" % sys.version_info[:2])' 2>/dev/null) &&
    [ "${found##* }" = "$version" ]; then
    echo "${found% *}"
    exit 0
  fi
done
exit 1
