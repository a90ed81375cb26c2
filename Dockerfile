# Four images:
#   pipeline       what the steps of the Kubeflow pipelines run in (torch and onnxruntime with CUDA)
#   pipeline-slim  the same without torch and CUDA, for the steps that need neither, and with the command line, which submits runs
#   predictor      KServe's server for one model version at /mnt/models (no torch), and the step that tries a version in it, validate_serving
#   predictor-gpu  the same server on a GPU: the predictor's layers, and above them onnxruntime with CUDA
# `make image` builds the first two; docs/images.md has their sizes, start times and how they are run.
#
# Whatever a release changes least comes first: interpreter, dependencies, code, labels. A push sends only the layers that changed.
# pip's cache is a mount of the builder and in no layer.
# The build argument EXTRAS names further extras of pyproject.toml, such as lineage,mlflow, for all but the GPU layer.
# hadolint global ignore=DL3042

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
# HOME: a user without an account has none, and libraries write where it points. /opt/penstock/code is put on the path last.
ENV PATH=/opt/penstock/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
# The standard library comes without .pyc files, and a read-only root never gets them: 15 MB that save half a second of every start.
# Hashes instead of times decide whether a .pyc fits, so that the same sources give the same files.
RUN python3 -m venv --without-pip /opt/penstock \
    && python3 -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "penstock.pth").write_text("/opt/penstock/code\n")' \
    && library="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && python3 -m compileall -q --invalidation-mode checked-hash \
        -x '/(test|tests|idlelib|lib2to3|ensurepip|tkinter|turtledemo|pydoc_data|config-[^/]*|dist-packages|site-packages)/' "$library" \
    && find /opt/penstock "$library" '(' -type d -o -name '*.pyc' -o -path '/opt/*' ')' -exec touch --no-dereference --date=@0 {} +
WORKDIR /opt/penstock


# What builds: nothing is downloaded that has not one of the hashes in hashes.txt, these tools included.
# kfp-server-api has no wheels: what is resolved and installed is one that is made here of its source.
FROM base AS tools
ARG PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/cache SOURCE_DATE_EPOCH=315532800
WORKDIR /requirements
RUN --mount=type=cache,target=/cache --mount=type=bind,source=hashes.txt,target=/hashes.txt \
    sed -nE '/^(pip|setuptools)==/,/[^\\]$/p' /hashes.txt >tools.txt \
    && sed -n '/^kfp-server-api==/,/[^\\]$/p' /hashes.txt >source.txt \
    && python3 -m venv /tools \
    && /tools/bin/python -m pip install --quiet --no-deps --require-hashes --upgrade --requirement tools.txt \
    && /tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --require-hashes --wheel-dir wheels --requirement source.txt \
    && rm tools.txt source.txt


# What each image installs, from pyproject.toml's own extras. This pip, newer than the base image's, reads only metadata for it.
FROM tools AS resolver
COPY .docker/requirements.py pyproject.toml constraints.txt hashes.txt ./

# KServe's SDK asks for a Kubernetes client, pandas, a protobuf compiler and more, which its server does without (components/predictor/sdk.py).
# kfp is for validate_serving: the server does not import it. Signatures need cryptography, and no parser of certificates or Markdown.
# httpx is imported by kserve, but no request goes through it.
FROM resolver AS predictor-requirements
ARG EXTRAS=""
RUN --mount=type=cache,target=/cache \
    /tools/bin/python requirements.py predictor,signing --also "$EXTRAS" --alone kfp --without \
        kubernetes google-auth oauthlib requests-oauthlib websocket-client durationpy \
        pandas pytz tzdata grpcio-tools setuptools tabulate \
        aiohttp aiohappyeyeballs aiosignal frozenlist multidict propcache yarl attrs \
        pyasn1-modules websockets flatbuffers httpcore h11 \
        asn1crypto dnspython markdown-it-py mdurl pyasn1 pycparser >predictor.txt

# What onnxruntime-gpu's extras cuda and cudnn name, and nothing else of CUDA.
FROM resolver AS gpu-requirements
RUN --mount=type=cache,target=/cache \
    /tools/bin/python requirements.py "" --only \
        onnxruntime-gpu nvidia-cublas nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-curand nvidia-nvjitlink >gpu.txt

# kfp without its dependencies is all that a step's start needs. No server: validate_serving runs in the predictor's image.
# Triton (900 MB) compiles kernels for torch.compile, which training does not use. onnxruntime-gpu runs on CPUs too, and finds torch's CUDA.
FROM resolver AS pipeline-requirements
ARG EXTRAS=""
RUN --mount=type=cache,target=/cache \
    /tools/bin/python requirements.py train,evaluate,score,deploy,signing --also "$EXTRAS" --alone kfp onnxruntime-gpu --never triton onnxruntime >pipeline.txt


# kfp with all of it: `penstock watch` and `penstock submit` compile pipelines and ask Kubeflow's API.
FROM resolver AS slim-requirements
ARG EXTRAS=""
RUN --mount=type=cache,target=/cache \
    /tools/bin/python requirements.py evaluate,score,deploy,signing,cli --also "$EXTRAS" >slim.txt


FROM tools AS code
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY components components
COPY pipelines pipelines
RUN /tools/bin/python -m pip install --quiet --no-index --no-build-isolation --no-deps --no-compile --target /opt/penstock/code . \
    && rm -rf /opt/penstock/code/bin \
    && python3 -m compileall -q --invalidation-mode checked-hash /opt/penstock/code \
    && find /opt/penstock/code -exec touch --no-dereference --date=@0 {} +


FROM base AS pipeline
ARG PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/cache
# Some packages hold files for newer Pythons, which this one cannot compile: that is no failure.
RUN --mount=type=cache,target=/cache --mount=type=bind,from=pipeline-requirements,source=/requirements/pipeline.txt,target=/requirements.txt \
    pip --python /opt/penstock/bin/python install --quiet --no-compile --no-deps --require-hashes --requirement /requirements.txt \
    && packages="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find "$packages" -type d -name tests -prune -exec rm -r {} + \
    && rm -rf "$packages"/torch/include "$packages"/torch/bin/protoc* "$packages"/nvidia/*/include \
    && { python3 -m compileall -qq -j 0 --invalidation-mode checked-hash "$packages" || true; } \
    && find /opt/penstock -exec touch --no-dereference --date=@0 {} +
COPY --from=code /opt/penstock/code /opt/penstock/code
USER 65532:65532
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
ARG EXTRAS=""
ARG BASE_NAME=""
ARG BASE_DIGEST=""
ENV PENSTOCK_CODE_VERSION=${VERSION}${REVISION:++g$REVISION}
LABEL org.opencontainers.image.title="Penstock pipeline" \
    org.opencontainers.image.description="The steps of Penstock's Kubeflow pipelines" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${BASE_NAME}" \
    org.opencontainers.image.base.digest="${BASE_DIGEST}" \
    penstock.extras="${EXTRAS}"


FROM base AS pipeline-slim
ARG PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/cache
# botocore describes 400 services: those of S3 and of the ways to get credentials stay.
RUN --mount=type=cache,target=/cache --mount=type=bind,from=slim-requirements,source=/requirements/slim.txt,target=/requirements.txt \
    --mount=type=bind,from=tools,source=/requirements/wheels,target=/requirements/wheels \
    pip --python /opt/penstock/bin/python install --quiet --no-compile --no-deps --require-hashes --requirement /requirements.txt \
    && packages="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d -regextype egrep -not -regex '.*/(s3|sts|sso|sso-oidc|signin)' -exec rm -r {} + \
    && find "$packages" -type d -name tests -prune -exec rm -r {} + \
    && { python3 -m compileall -qq -j 0 --invalidation-mode checked-hash "$packages" || true; } \
    && find /opt/penstock -exec touch --no-dereference --date=@0 {} +
COPY --from=code /opt/penstock/code /opt/penstock/code
USER 65532:65532
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
ARG EXTRAS=""
ARG BASE_NAME=""
ARG BASE_DIGEST=""
ENV PENSTOCK_CODE_VERSION=${VERSION}${REVISION:++g$REVISION}
LABEL org.opencontainers.image.title="Penstock pipeline without torch" \
    org.opencontainers.image.description="The steps of Penstock's Kubeflow pipelines that need no torch, and the command line" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${BASE_NAME}" \
    org.opencontainers.image.base.digest="${BASE_DIGEST}" \
    penstock.extras="${EXTRAS}"


FROM base AS predictor
ARG PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/cache
# botocore describes 400 services: those of S3 and of the ways to get credentials stay.
RUN --mount=type=cache,target=/cache --mount=type=bind,from=predictor-requirements,source=/requirements/predictor.txt,target=/requirements.txt \
    pip --python /opt/penstock/bin/python install --quiet --no-compile --no-deps --require-hashes --requirement /requirements.txt \
    && packages="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d -regextype egrep -not -regex '.*/(s3|sts|sso|sso-oidc|signin)' -exec rm -r {} + \
    && find "$packages" -type d -name tests -prune -exec rm -r {} + \
    && python3 -m compileall -q --invalidation-mode checked-hash "$packages" \
    && find /opt/penstock -exec touch --no-dereference --date=@0 {} +
COPY --from=code /opt/penstock/code /opt/penstock/code
USER 65532:65532
# One arena of the C library for all threads: with one per thread, what large requests took could not be given back whole.
ENV MALLOC_ARENA_MAX=1
EXPOSE 8080
STOPSIGNAL SIGTERM
# For plain Docker; Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-ISc", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PENSTOCK_HTTP_PORT', '8080')), timeout=4); c.request('GET', '/v2/health/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python3", "-m", "components.predictor"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
ARG EXTRAS=""
ARG BASE_NAME=""
ARG BASE_DIGEST=""
ENV PENSTOCK_CODE_VERSION=${VERSION}${REVISION:++g$REVISION}
LABEL org.opencontainers.image.title="Penstock predictor" \
    org.opencontainers.image.description="KServe predictor for image classifiers" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${BASE_NAME}" \
    org.opencontainers.image.base.digest="${BASE_DIGEST}" \
    penstock.extras="${EXTRAS}"


# On top, though it changes least: the files are the same at every build, so that the layer is pushed once.
FROM predictor AS predictor-gpu
ARG PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CACHE_DIR=/cache
USER 0:0
RUN --mount=type=cache,target=/cache --mount=type=bind,from=gpu-requirements,source=/requirements/gpu.txt,target=/requirements.txt \
    pip --python /opt/penstock/bin/python uninstall --quiet --yes onnxruntime \
    && pip --python /opt/penstock/bin/python install --quiet --no-compile --no-deps --require-hashes --requirement /requirements.txt \
    && packages="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && rm -rf "$packages"/nvidia/*/include "$packages"/nvidia/*/lib/*.a "$packages"/onnxruntime/capi/libonnxruntime_providers_tensorrt.so \
    && python3 -m compileall -q --invalidation-mode checked-hash "$packages" \
    && find /opt/penstock -exec touch --no-dereference --date=@0 {} +
USER 65532:65532
# Without a GPU it says so and ends: a server that quietly ran on the CPU would be found out by its bill.
ENV PENSTOCK_DEVICE=cuda
LABEL org.opencontainers.image.title="Penstock predictor for GPUs"
