# Launcher image of the flex template: compiles and stages the module, and builds the graph. Build it in the
# repository's root:
#
#   docker build -f deploy/dataflow/launcher.Dockerfile -t IMAGE .
#
#   --build-arg "EXTRAS=[launcher,dataflow,demo]"         --module demo
#   --build-arg "EXTRAS=[launcher,dataflow,aws,azure]"    images on s3:// and azfs://
#   --build-arg "EXTRAS=[launcher,dataflow,openvino]"     --engine openvino, --precision bfloat16
# A tag may later name another image. For a reproducible build pass digests: --build-arg LAUNCHER_IMAGE=...@sha256:...
ARG LAUNCHER_IMAGE=gcr.io/dataflow-templates-base/python311-template-launcher-base:20260122_RC00
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${LAUNCHER_IMAGE} AS launcher

FROM ${PYTHON_IMAGE}
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ARG EXTRAS="[launcher,dataflow]"
COPY pyproject.toml setup.py README.md LICENSE NOTICE requirements.lock /src/
COPY tools/lock_requirements.py /src/tools/
# beamlabel/ holds links to pipeline/ and transforms/.
COPY beamlabel /src/beamlabel
COPY pipeline /src/pipeline
COPY transforms /src/transforms
# TensorFlow starts in a third of the time if its bytecode is compiled at install.
# The lock holds the hashes of all installed packages: beamlabel's dependencies and its build tools.
RUN python /src/tools/lock_requirements.py build >/src/build.txt \
 && python /src/tools/lock_requirements.py "build,base${EXTRAS}" >/src/needed.txt \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement /src/build.txt \
 && pip install --no-cache-dir --compile --no-deps --no-build-isolation --require-hashes --requirement /src/needed.txt \
 && pip install --no-cache-dir --compile --no-deps --no-build-isolation /src \
 && rm -r /src
WORKDIR /template
COPY deploy/dataflow/launch.py ./
# No setup file and no requirements: the worker image holds all dependencies.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
