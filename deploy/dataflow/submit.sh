#!/usr/bin/env bash
# Builds the flex template and its images on Google Cloud, runs jobs from it, and publishes their results.
#
#   export PROJECT=a-project REGION=us-central1 BUCKET=a-bucket
#   deploy/dataflow/submit.sh build
#   deploy/dataflow/submit.sh run --max-workers=50 \
#     input=gs://a-bucket/photos.txt output=gs://a-bucket/labels module=HANDLE
#   deploy/dataflow/submit.sh publish JOB_ID gs://a-bucket/labels
#
# `run` passes arguments that begin with -- to gcloud (as --flag=value), and all others (name=value) to the template;
# metadata.json lists the template's parameters. `publish` waits for the job and publishes its committed output.
# REPOSITORY (in Artifact Registry, default beamlabel) and TAG (default: the version of beamlabel) name the images.
# BUILD_ARGS goes to the build of the workers' image: see worker.Dockerfile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  sed -n '2,14s/^# \{0,1\}//p' deploy/dataflow/submit.sh >&2
  exit 2
}

: "${PROJECT:?the Google Cloud project}" "${REGION:?such as us-central1}" "${BUCKET:?a bucket, without gs://}"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' beamlabel/__init__.py)
registry=$REGION-docker.pkg.dev/$PROJECT/${REPOSITORY:-beamlabel}
launcher=$registry/launcher:${TAG:-$version}
worker=$registry/worker:${TAG:-$version}
template=gs://$BUCKET/templates/beamlabel-${TAG:-$version}.json

build() {
  gcloud auth configure-docker "$REGION-docker.pkg.dev" --quiet
  # shellcheck disable=SC2086  # several words
  docker build ${BUILD_ARGS:-} --file deploy/dataflow/worker.Dockerfile --tag "$worker" .
  docker build --file deploy/dataflow/launcher.Dockerfile --tag "$launcher" .
  docker push "$worker"
  docker push "$launcher"
  gcloud dataflow flex-template build "$template" --project "$PROJECT" --image "$launcher" \
    --sdk-language PYTHON --metadata-file deploy/dataflow/metadata.json
}

run() {
  local flags=() parameters="^~^sdk_container_image=$worker"
  for word in "$@"; do
    case $word in
      --*) flags+=("$word") ;;
      *~*)
        # gcloud separates parameters by commas, or by the text between two ^.
        echo "submit.sh: parameter contains ~, which is not supported: $word" >&2
        exit 2
        ;;
      *=*) parameters+="~$word" ;;
      *) usage ;;
    esac
  done
  gcloud dataflow flex-template run "beamlabel-$(date -u +%Y%m%dt%H%M%S)" \
    --project "$PROJECT" --region "$REGION" --template-file-gcs-location "$template" \
    --temp-location "gs://$BUCKET/temp" --staging-location "gs://$BUCKET/staging" \
    --parameters "$parameters" ${flags[@]+"${flags[@]}"}
}

publish() {
  local job=$1 output=$2 state=""
  until case $state in JOB_STATE_DONE | JOB_STATE_FAILED | JOB_STATE_CANCELLED) ;; *) false ;; esac; do
    if [ -n "$state" ]; then sleep "${POLL_SECONDS:-30}"; fi
    state=$(gcloud dataflow jobs describe "$job" --project "$PROJECT" --region "$REGION" --format 'value(currentState)')
    echo "$job: $state" >&2
  done
  beamlabel publish "$output"
}

case ${1:-} in
  build) [ $# = 1 ] || usage; build ;;
  run) shift; run "$@" ;;
  publish) [ $# = 3 ] || usage; publish "$2" "$3" ;;
  *) usage ;;
esac
