# lean_align for one CUDA card.  The wheels of torch bring CUDA; the machine needs a driver and the NVIDIA container toolkit.
#   docker build -t lean-align .
#   docker run --gpus all -v "$PWD/runs:/work/runs" -v lean-align-hub:/root/.cache/huggingface lean-align run gsm8k
FROM python:3.11-slim

# Triton and vLLM compile small kernels when they start
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY requirements/gpu.txt requirements/gpu.txt
RUN pip install --no-cache-dir --no-deps --requirement requirements/gpu.txt

COPY pyproject.toml README.md LICENSE ./
COPY lean_align lean_align
COPY recipes recipes
RUN pip install --no-cache-dir "hatchling==1.33.0" && pip install --no-cache-dir --no-deps --no-build-isolation .

WORKDIR /work
VOLUME ["/work/runs"]
ENTRYPOINT ["lean-align"]
CMD ["doctor"]
