#!/usr/bin/env bash
# Sets up .venv with the test extras, Prism and a GCS server where there is Go, Azurite where there is Node, and Flink and
# a pipeline in Java where there is Java; then ruff, codespell, a check of links, mypy, and pytest in two processes. Arguments go to pytest: -m "not slow" leaves out what
# takes long, see tests/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# Downloads and builds wait for networks and processes of their own, so they run beside each other; Maven's two do not,
# since they share a repository.
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
