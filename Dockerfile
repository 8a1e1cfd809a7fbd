# sparsegpt-trt on NVIDIA's PyTorch image. docker/README.md says how to use it and what has been tested.
# 26.05 has torch 2.12.0a0, TensorRT 10.16, CUDA 13.2 and Python 3.12. Before 26.02 torch is too old; after 26.05 the images
# have TensorRT 11. docs/decisions/0020 has the reasons.
ARG BASE=nvcr.io/nvidia/pytorch:26.05-py3

FROM ${BASE} AS wheel
COPY . /src
RUN PIP_CONSTRAINT='' python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /src

FROM ${BASE}
# Packages are installed into a virtual environment on top of the base's packages, which stay unchanged. The lock lists all
# of them, so pip resolves nothing. NVIDIA's constraints would refuse newer versions and are switched off.
ENV PATH=/opt/sparsegpt-trt/bin:${PATH}
RUN --mount=type=bind,source=docker/requirements.txt,target=/tmp/requirements.txt \
    python3 -m venv --system-site-packages --without-pip /opt/sparsegpt-trt \
    && PIP_CONSTRAINT='' python -m pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/tmp/wheel \
    --mount=type=bind,source=docker/check_environment.py,target=/tmp/check_environment.py \
    python -m pip install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl \
    && python /tmp/check_environment.py torch torchvision numpy tensorrt

# Any --user may write to its home (caches of CUDA, PyCUDA, Triton, matplotlib) and to /data. A user without an entry in
# /etc/passwd needs a name too.
ENV HOME=/home/sparsegpt-trt USER=sparsegpt-trt
RUN install -d -m 1777 "${HOME}" /data
USER 1000:1000
WORKDIR /data

ARG BASE VERSION=0.1.0 REVISION=unknown
LABEL org.opencontainers.image.title="sparsegpt-trt" \
      org.opencontainers.image.description="One-shot 2:4 pruning of CNNs with SparseGPT, down to verified ONNX and TensorRT engines" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
HEALTHCHECK --interval=10m --timeout=2m CMD ["sparsegpt-trt", "doctor", "--strict", "--quiet"]
# The base's entrypoint remains: it checks the driver and sets up CUDA's compatibility libraries.
CMD ["sparsegpt-trt", "doctor"]
