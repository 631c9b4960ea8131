# syntax=docker/dockerfile:1
# docker build --target cpu -t weitiao:cpu .
# docker build --target cuda -t weitiao:cuda .
# docker run --rm -v "$PWD:/work" -v weitiao-cache:/home/weitiao/.cache --gpus all weitiao:cuda train reviews.yaml
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS base
# The folders are the user's own, so volumes that are mounted there are, too.
RUN useradd --create-home --uid 1000 weitiao \
    && mkdir -p /work /home/weitiao/.cache \
    && chown -R weitiao:weitiao /work /home/weitiao/.cache
ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS cpu
# torch's own index has builds without CUDA; another index (a mirror) is named by --build-arg.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch>=2.11"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir /wheels/*.whl
USER 1000
WORKDIR /work
ENTRYPOINT ["weitiao"]

FROM base AS cuda
# Triton builds a small launcher with a C compiler when a kernel first runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# On Linux, torch from the package index brings CUDA's libraries; the driver is the host's.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir /wheels/*.whl "bitsandbytes>=0.45"
USER 1000
WORKDIR /work
ENTRYPOINT ["weitiao"]
