#!/usr/bin/env bash
# Builds the Java pipeline that calls LabelImages, for the tests of that, into .runners/java: its jar and Beam's.
#
# Does nothing when it is up to date, and nothing where Java or Maven is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in javac mvn; do
  if ! command -v "$tool" >/dev/null; then
    echo "tools/setup_java.sh: NO JAVA PIPELINE HERE: '$tool' is not on PATH (a JDK, 11 or later, and Maven are needed)." >&2
    echo "tools/setup_java.sh: the test of LabelImages from Java will not run." >&2
    exit 0
  fi
done

target=.runners/java
stamp=$target/.installed
project=tests/support/java
wanted=$(cat tools/setup_java.sh "$project/pom.xml" "$project"/src/main/java/*.java | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0

echo "Building the Java pipeline that calls LabelImages into $target (a minute or two the first time) ..." >&2
mkdir -p .runners
rm -rf "$target"
build=$(mktemp -d .runners/java.XXXXXX)
trap 'rm -rf "$build"' EXIT

# Maven checks its downloads against the repository's checksums.
mvn --quiet --batch-mode --strict-checksums --file "$project/pom.xml" -Dtarget="$PWD/$build/maven" package

mv "$build/maven/jars" "$target"
echo "$wanted" >"$stamp"
