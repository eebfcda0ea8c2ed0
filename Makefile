# Each target first makes the environment if it is missing or older than its lock.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Nothing is downloaded at run time unless a configuration names it.
export HF_HUB_OFFLINE := 1

.PHONY: env demo test test-slurm faults disturb bench bench-generate ablation lint lock

# `make env CPU=1`: torch without CUDA, from TORCH_INDEX, which saves two thirds of the download.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
WITHOUT_CUDA := grep -v -E '^(nvidia|cuda|triton)[a-z0-9-]*=='
FROM_TORCH := --index-strategy unsafe-best-match --extra-index-url $(TORCH_INDEX)

env: $(READY)

$(READY): envs/lock.txt pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^uv==' envs/lock.txt)"
	$(if $(CPU),$(WITHOUT_CUDA),cat) envs/lock.txt > $(VENV)/lock.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet $(if $(CPU),$(FROM_TORCH)) $(VENV)/lock.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	snakemake --cores all --configfile config/demo.yaml
	stdiff summary results/demo

# One test per core; at most eight, since more need too much memory on a small machine.
test: $(READY)
	pytest -n logical --maxprocesses 8 --dist worksteal

# The chain on a Slurm started on this machine, with faults; skipped if Slurm is not installed
# (Debian: apt-get install munge slurmctld slurmd slurm-client, as root).
test-slurm: $(READY)
	timeout 600 pytest -m slurm -rs

# A run with this many faults; the same command again must end with the same tables.
FAULTS ?= 5
faults: $(READY)
	FAULTS=$(FAULTS) pytest -m faults -rs -s

# Both of these, compared with the same undisturbed run.
disturb: $(READY)
	FAULTS=$(FAULTS) timeout 700 pytest -m "slurm or faults" -rs -s

# libgomp's threads spin while waiting, which slows a step several times beside any other process.
# stdiff sets this itself, but too late for a script that imports torch first.
export GOMP_SPINCOUNT ?= 1000

# Ablation of ST-Diff's parts, on real files: make ablation DATA=FOLDER
ablation: $(READY)
	snakemake --cores all --configfile config/busi_cpu.yaml config/studies/all_labels_cpu.yaml \
		--config data_root=$(DATA) run=ablation -- results/ablation/autoencoder \
		results/ablation/segment/unet_resnet18/real-100/seed0.parquet
	python bench/ablation.py --run results/ablation

# Generation compared with the stock pipeline of diffusers, on real files: make bench-generate DATA=FOLDER
bench-generate: $(READY)
	snakemake --cores all --configfile config/busi_cpu.yaml config/studies/all_labels_cpu.yaml \
		--config data_root=$(DATA) -- results/all_labels/labels100/model \
		results/all_labels/segment/unet_resnet18/real-100/seed0.parquet
	python bench/generate.py --run results/all_labels

# Side-by-side measurements; docs/results.md has those that are kept.
OF_A_RUN := $(addprefix bench/,ablation.py filter.py generate.py insertion.py scale.py)
bench: $(READY)
	for script in $(filter-out $(OF_A_RUN),$(wildcard bench/*.py)); do python $$script; done

lint: $(READY)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint --configfile config/demo.yaml
	snakemake --lint --snakefile workflow/folds.smk --configfile config/demo.yaml --config split='{folds: 2}'

# Newest versions of all dependencies; then run the tests and commit.
lock: $(READY)
	uv pip compile --quiet --universal --no-annotate --no-header --python-version 3.11 \
		--extra dev --extra dicom --upgrade --output-file envs/lock.txt pyproject.toml envs/tools.in
	python envs/conda.py
