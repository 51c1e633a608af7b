# What starts a job from the flex template: it compiles the module, stages it, and makes the graph. From the top of
# the repository:
#
#   docker build --file deploy/dataflow/launcher.Dockerfile --tag IMAGE .
#
#   --build-arg EXTRAS=launcher,dataflow,demo         --module demo
#   --build-arg EXTRAS=launcher,dataflow,openvino     --engine openvino, --precision bfloat16
ARG PYTHON=3.11
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20260122_RC00 AS launcher

FROM python:${PYTHON}-slim
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher

ARG EXTRAS=launcher,dataflow
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md constraints.txt ./
COPY pipeline pipeline
COPY transforms transforms
RUN pip install --no-cache-dir --constraint constraints.txt "beamlabel[${EXTRAS}] @ file:///src"

WORKDIR /template
COPY deploy/dataflow/launch.py ./
# Neither a setup file nor requirements: the workers' image holds all that they need.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
