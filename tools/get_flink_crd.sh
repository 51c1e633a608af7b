#!/usr/bin/env bash
# Fetches the jar of the Flink Kubernetes Operator's API, which holds the definition of a FlinkDeployment, into
# .runners/flink-operator: tests/project/test_deploy_flink.py checks deploy/flink/ against it. Needs Maven.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=1.10.0
jar=flink-kubernetes-operator-api-$version.jar
target=.runners/flink-operator

[ ! -f "$target/$jar" ] || exit 0
mkdir -p "$target"
part=$(mktemp -d "$target/part.XXXXXX")
trap 'rm -rf "$part"' EXIT
mvn --quiet --batch-mode --strict-checksums org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy \
  -Dartifact=org.apache.flink:flink-kubernetes-operator-api:$version -DoutputDirectory="$PWD/$part"
mv "$part/$jar" "$target/$jar"
