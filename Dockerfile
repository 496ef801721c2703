# One image for cluster.yaml, cluster.local.yaml and kubernetes/: torch's wheels from PyPI carry CUDA
# and run on CPUs too. Build and push: docs/cluster.md
FROM python:3.11-slim-bookworm

# ssh and rsync: the head reaches workers with them; wget: Kubernetes asks Ray's health with it
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

# 1000 is the first user of Ubuntu's machine images too, so files mounted from there can be read
RUN useradd --create-home --uid 1000 --shell /bin/bash ray

WORKDIR /opt/raysweep

# dependencies first: a change of code rebuilds only what follows
COPY pyproject.toml constraints.txt LICENSE ./
RUN touch README.md \
    && pip install --no-cache-dir --constraint constraints.txt '.[cluster,export,published]' \
    && pip uninstall --yes raysweep

COPY README.md ./
COPY raysweep raysweep
COPY search_spaces search_spaces
COPY jobs jobs
RUN pip install --no-cache-dir --no-deps --constraint constraints.txt . && rm -rf build *.egg-info

# Ray takes the home directory from the image's environment
ENV HOME=/home/ray \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1
USER ray
CMD ["python", "jobs/sweep_resolution.py", "--help"]
