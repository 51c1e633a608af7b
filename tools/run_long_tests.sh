#!/usr/bin/env bash
# Runs what takes too long for run_tests.sh (more than an hour): the long tests, and kills at many moments, on this
# machine and on Flink. Each command prints its findings and ends with 1 if a row was lost or doubled. Needs the set-up
# of run_tests.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export BEAMLABEL_TESTS_LONG=1
.venv/bin/python -m pytest -m long
.venv/bin/python -m pytest tests/pipeline/job/test_secrets.py
.venv/bin/python benchmarks/kills.py --kills 25
.venv/bin/python benchmarks/soak.py
.venv/bin/python benchmarks/flink_kills.py --kills 20
.venv/bin/python benchmarks/flink_faults.py --module tests/data/tiny_classification_1.tar.gz
for seed in 1 2 3; do PYTHONPATH=. .venv/bin/python benchmarks/nightly.py --seed "$seed"; done
