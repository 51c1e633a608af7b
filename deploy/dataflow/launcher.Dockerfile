# What starts a job from the flex template: it compiles the module, stages it, and makes the graph. From the
# repository's folder:
#
#   docker build -f deploy/dataflow/launcher.Dockerfile -t IMAGE .
#
#   --build-arg "EXTRAS=[launcher,dataflow,demo]"         --module demo
#   --build-arg "EXTRAS=[launcher,dataflow,aws,azure]"    images on s3:// and azfs://
#   --build-arg "EXTRAS=[launcher,dataflow,openvino]"     --engine openvino, --precision bfloat16
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20260122_RC00 AS launcher

FROM python:3.11-slim-bookworm
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ARG EXTRAS="[launcher,dataflow]"
COPY pyproject.toml setup.py README.md LICENSE NOTICE constraints.txt /src/
# beamlabel/ holds links to the other two.
COPY beamlabel /src/beamlabel
COPY pipeline /src/pipeline
COPY transforms /src/transforms
# TensorFlow starts in a third of the time where its bytecode was compiled at install.
RUN pip install --no-cache-dir --compile --constraint /src/constraints.txt "/src${EXTRAS}" && rm -r /src
WORKDIR /template
COPY deploy/dataflow/launch.py ./
# Neither a setup file nor requirements: the workers' image holds all that they need.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
