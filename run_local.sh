#!/usr/bin/env bash
# Sets up .venv and labels images on this machine: the sample photographs, or the images that the arguments name.
#
#   ./run_local.sh
#   ./run_local.sh --input photos/ --input_format images --module demo --output out/photos
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/tools/setup_venv.sh" launcher,demo
python="$here/.venv/bin/python"

if [ $# -gt 0 ]; then
  case $1 in
    --*) exec "$python" -m beamlabel --report "$@" ;;
    *) exec "$python" -m beamlabel "$@" ;;
  esac
fi

output="$here/out/sample"
mkdir -p "$here/out"
"$python" -m beamlabel.pipeline.demo.sample "$here/out/sample.txt"
"$python" -m beamlabel --input "$here/out/sample.txt" --module demo --output "$output" --if_exists overwrite \
  --report
"$python" -m beamlabel.pipeline.demo.sample --show "$output"
