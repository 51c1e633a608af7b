#!/usr/bin/env bash
# Sets up .venv with the test extras, Prism where there is Go, and Flink where there is Java; then ruff, mypy and
# pytest. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
tools/setup_venv.sh launcher,demo,dataflow,openvino,test
tools/setup_prism.sh
tools/setup_flink.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
