#!/usr/bin/env bash
# Runs the core of the suite, without slow tests and tests of other runners, on another Python, in the environment
# .venv-VERSION.
#
#   tools/run_core_tests.sh 3.13
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$1
python=$(tools/find_python.sh "$version") || {
  echo "run_core_tests.sh: no Python $version found; the core tests did not run on it" >&2
  [ -z "${BEAMLABEL_TESTS_REQUIRE_ALL:-}" ] || exit 1
  exit 0
}
PYTHON=$python VENV=.venv-$version tools/setup_venv.sh launcher,test
".venv-$version/bin/python" -m pytest --numprocesses "${BEAMLABEL_TEST_PROCESSES:-2}" --no-loadscope-reorder -m "not slow" \
  tests/pipeline/options tests/pipeline/job tests/transforms/elements tests/transforms/test_label_images.py \
  tests/transforms/inputs tests/transforms/loading tests/transforms/decoding \
  tests/transforms/inference tests/transforms/rows tests/transforms/writing tests/transforms/worker
