#!/usr/bin/env bash
# Sets up .venv with the test extras, and the servers and runners of the tests: Prism and a GCS server if there is Go,
# Azurite if there is Node, Flink and a pipeline in Java if there is Java. Then runs ruff, codespell, a link check,
# mypy, and pytest in two processes. Arguments go to pytest: -m "not slow" leaves out the slow tests; see
# tests/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# Downloads and builds mostly wait, so they run in parallel. Maven's two builds share a repository, so they run one
# after the other.
{ tools/setup_prism.sh && tools/setup_gcs_server.sh && tools/setup_azurite.sh; } &
go_builds=$!
tools/setup_venv.sh launcher,demo,dataflow,aws,azure,int8,yaml,interactive,test
{ tools/setup_flink.sh && tools/setup_java.sh; } &
java_builds=$!
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/codespell
.venv/bin/deadlinkfinder --quiet README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs benchmarks tests tools
.venv/bin/mypy
wait "$go_builds"
wait "$java_builds"
.venv/bin/python -m pytest --numprocesses "${BEAMLABEL_TEST_PROCESSES:-2}" --no-loadscope-reorder "$@"
