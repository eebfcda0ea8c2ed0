#!/bin/bash
# Snakemake runs this inside the environment of stdiff.yaml when it has made it.
set -euo pipefail
pip install --no-deps --no-build-isolation --editable "$PWD"
