#!/usr/bin/env bash
# Makes the environment of the peer, apart from ours: benchmarks/peers/deepimagesearch/.venv
set -euo pipefail
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
.venv/bin/python -c 'import DeepImageSearch, timm, torch; print(f"DeepImageSearch 3.0.3 ready: timm {timm.__version__}, torch {torch.__version__}")'
