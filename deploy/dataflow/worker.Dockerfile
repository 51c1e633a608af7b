# What Dataflow's workers run. From the top of the repository:
#
#   docker build --file deploy/dataflow/worker.Dockerfile --tag IMAGE .
#
# A LiteRT artifact, which is the usual one, needs no TensorFlow. For others:
#
#   --build-arg EXTRAS=openvino                       --engine openvino, --precision bfloat16
#   --build-arg EXTRAS=launcher                       --engine tensorflow on CPUs
#   --build-arg "PACKAGES=tensorflow[and-cuda]"       --engine tensorflow on GPUs
#   --build-arg TFRECORDS=yes                         --output_format tfrecord
ARG PYTHON=3.11
ARG BEAM=2.77.0
FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS beam

FROM python:${PYTHON}-slim
COPY --from=beam /opt/apache/beam /opt/apache/beam

ARG EXTRAS=""
ARG PACKAGES=""
ARG TFRECORDS=""
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md constraints.txt ./
COPY pipeline pipeline
COPY transforms transforms
# PACKAGES unquoted: there may be none, or several. tfx-bsl without its dependencies: they are TensorFlow.
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt "beamlabel[${EXTRAS}] @ file:///src" ${PACKAGES} \
 && if [ -n "${TFRECORDS}" ]; then \
      pip install --no-cache-dir --constraint constraints.txt tensorflow-metadata \
      && pip install --no-cache-dir --constraint constraints.txt --no-deps tfx-bsl; \
    fi

# All is installed: a worker need not make a virtual environment when it starts.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
# Where Dataflow puts the driver of a GPU.
ENV PATH="${PATH}:/usr/local/nvidia/bin" LD_LIBRARY_PATH=/usr/local/nvidia/lib64
WORKDIR /
ENTRYPOINT ["/opt/apache/beam/boot"]
