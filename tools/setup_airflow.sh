#!/usr/bin/env bash
# Creates .runners/airflow, an environment with Airflow in which tests/project/test_deploy_airflow.py runs
# deploy/nightly/airflow_dag.py. It is separate because Airflow's versions differ from beamlabel's. Needs Python 3.11 or
# later, and 1.6 GB. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
requirements=tools/airflow-requirements.txt
directory=.runners/airflow
cmp -s "$requirements" "$directory/.installed" && exit 0
echo "Installing Airflow into $directory (a minute or two) ..." >&2
rm -rf "$directory"
"$python" -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.8
"$directory/bin/uv" pip install --quiet --python "$directory/bin/python" --requirement "$requirements"
cp "$requirements" "$directory/.installed"
