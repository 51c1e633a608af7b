# A worker: Beam's boot program and a plain install of beamlabel, without TensorFlow. From the repository's folder:
#
#   docker build -f deploy/dataflow/worker.Dockerfile -t IMAGE .
#
# A LiteRT artifact, which is the usual one, needs no more. For others:
#
#   --build-arg "EXTRAS=[openvino]"                   --engine openvino, --precision bfloat16
#   --build-arg "EXTRAS=[aws,azure]"                  images on s3:// and azfs://
#   --build-arg "EXTRAS=[launcher]"                   --engine tensorflow on CPUs
#   --build-arg "PACKAGES=tensorflow[and-cuda]"       --engine tensorflow on GPUs
#   --build-arg TFRECORDS=yes                         --output_format tfrecord
#
# Python, Beam and beamlabel are the launcher's, to the minor version.
# Tags may be given other images; who builds one to keep names digests: --build-arg BEAM_IMAGE=...@sha256:...
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
# beamlabel/ holds links to the other two.
COPY beamlabel /src/beamlabel
COPY pipeline /src/pipeline
COPY transforms /src/transforms
# Nothing is installed whose hash is not in the lock: neither what beamlabel needs, nor what builds it.
# But for PACKAGES, unquoted: there may be none, or several. Of tfx-bsl without TensorFlow.
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
# All that a job needs is in the image: no virtual environment a worker.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENV BEAMLABEL_CACHE=/tmp/beamlabel-cache
# A head's products are small: threads of NumPy's own would only spin.
ENV OPENBLAS_NUM_THREADS=1
# Where Dataflow puts the driver of a GPU.
ENV PATH="${PATH}:/usr/local/nvidia/bin" LD_LIBRARY_PATH=/usr/local/nvidia/lib64
ENTRYPOINT ["/opt/apache/beam/boot"]
