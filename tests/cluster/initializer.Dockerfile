# KServe's storage initializer for a cluster that can pull nothing: the package that KServe's own image holds, behind its two arguments.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
ENV HOME=/tmp
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check kserve-storage==0.20.0
USER 1000
ENTRYPOINT ["/opt/venv/bin/python", "-c", "import sys; from kserve_storage import Storage; Storage.download_files(sys.argv[1::2], sys.argv[2::2])"]
