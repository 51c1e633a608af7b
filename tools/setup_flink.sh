#!/usr/bin/env bash
# Installs a Flink cluster and Beam's job server for it into .runners/flink, for the tests and for trying things out:
#
#   .runners/flink/lib/           Flink's own jars
#   .runners/flink/job-server.jar what --flink_job_server_jar takes
#
# Does nothing when it is up to date, and nothing where Java or Maven is missing. Needs .venv, for its pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
flink_version=1.19.3
flink_sha256=4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60

for tool in java mvn; do
  if ! command -v "$tool" >/dev/null; then
    echo "tools/setup_flink.sh: NO FLINK HERE: '$tool' is not on PATH (Java 11 or 17, and Maven, are needed)." >&2
    echo "tools/setup_flink.sh: the tests on Flink will not run." >&2
    exit 0
  fi
done

target=.runners/flink
stamp=$target/.installed
wanted=$(cat tools/setup_flink.sh tools/flink/pom.xml | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0

echo "Installing Flink $flink_version and Beam's job server into $target (a minute or two the first time) ..." >&2
mkdir -p .runners
rm -rf "$target"
build=$(mktemp -d .runners/flink.XXXXXX)
trap 'rm -rf "$build"' EXIT
mkdir "$build/install"

# Flink's jars travel in a package for Python; pip checks the digest.
echo "apache-flink-libraries==$flink_version --hash=sha256:$flink_sha256" >"$build/requirements.txt"
.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
  --require-hashes --requirement "$build/requirements.txt" --dest "$build"
tar -xz --no-same-owner -f "$build/apache-flink-libraries-$flink_version.tar.gz" -C "$build" --strip-components=2 \
  "apache-flink-libraries-$flink_version/deps/lib"
mv "$build/lib" "$build/install/lib"

# Maven checks its downloads against the repository's checksums.
mvn --quiet --batch-mode --strict-checksums --file tools/flink/pom.xml -Dtarget="$PWD/$build/maven" package
mv "$build/maven/beam-flink-1.19-job-server.jar" "$build/install/job-server.jar"

mv "$build/install" "$target"
echo "$wanted" >"$stamp"
