# Worker image: Beam's boot program and beamlabel without TensorFlow. Build it in the repository's root:
#
#   docker build -f deploy/dataflow/worker.Dockerfile -t IMAGE .
#
# This is enough for LiteRT artifacts, the default. Other options need:
#
#   --build-arg "EXTRAS=[openvino]"                   --engine openvino, --precision bfloat16
#   --build-arg "EXTRAS=[aws,azure]"                  images on s3:// and azfs://
#   --build-arg "EXTRAS=[launcher]"                   --engine tensorflow on CPUs
#   --build-arg "PACKAGES=tensorflow[and-cuda]"       --engine tensorflow on GPUs
#   --build-arg TFRECORDS=yes                         --output_format tfrecord
#
# The minor versions of Python, Beam and beamlabel must equal the launcher's.
# A tag may later name another image. For a reproducible build pass digests: --build-arg BEAM_IMAGE=...@sha256:...
ARG BEAM_IMAGE=apache/beam_python3.11_sdk:2.77.0
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${BEAM_IMAGE} AS beam

FROM ${PYTHON_IMAGE}
COPY --from=beam /opt/apache/beam /opt/apache/beam
ARG EXTRAS=""
ARG PACKAGES=""
ARG TFRECORDS=""
COPY pyproject.toml setup.py README.md LICENSE NOTICE constraints.txt requirements.lock /src/
COPY tools/lock_requirements.py /src/tools/
# beamlabel/ holds links to pipeline/ and transforms/.
COPY beamlabel /src/beamlabel
COPY pipeline /src/pipeline
COPY transforms /src/transforms
# The lock holds the hashes of all installed packages except PACKAGES: beamlabel's dependencies and its build tools.
# PACKAGES is unquoted, since it may name several packages or none. tfx-bsl is installed without TensorFlow.
# hadolint ignore=SC2086
RUN python /src/tools/lock_requirements.py build >/src/build.txt \
 && python /src/tools/lock_requirements.py "build,base${EXTRAS}${TFRECORDS:+,=tfx-bsl,=tensorflow-metadata,=absl-py}" >/src/needed.txt \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement /src/build.txt \
 && pip install --no-cache-dir --compile --no-deps --no-build-isolation --require-hashes --requirement /src/needed.txt \
 && pip install --no-cache-dir --compile --no-deps --no-build-isolation /src \
 && if [ -n "${PACKAGES}" ]; then \
      pip install --no-cache-dir --compile --constraint /src/constraints.txt ${PACKAGES}; \
    fi \
 && rm -r /src
# The image holds all dependencies: workers need no virtual environment.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENV BEAMLABEL_CACHE=/tmp/beamlabel-cache
# A head's matrix products are small: NumPy's own threads would only spin.
ENV OPENBLAS_NUM_THREADS=1
# Dataflow installs the GPU driver here.
ENV PATH="${PATH}:/usr/local/nvidia/bin" LD_LIBRARY_PATH=/usr/local/nvidia/lib64
ENTRYPOINT ["/opt/apache/beam/boot"]
