# The two commands: `make demo` and `make test`. Everything else is here too; CI calls `make check` and `make test`.
# A fresh machine needs python3 (3.11 or 3.12), pip and make; the rest is installed into .venv on the first call.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	2>/dev/null && { echo $$p; break; }; done)
PIP := .venv/bin/python -m pip --disable-pip-version-check
PYTEST := .venv/bin/python -m pytest
GL_PACKAGES := libegl1 libgl1 libgl1-mesa-dri libosmesa6 libglib2.0-0
export OMP_NUM_THREADS ?= 2

.PHONY: install demo test test-slow test-gpu check fmt bench sdk video clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "robolearn needs Python 3.11 or 3.12; found $$(python3 --version 2>&1). Try: make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "Installing into .venv: some minutes the first time, mostly for torch"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python .venv/bin/python install -q pip
	$(PIP) install -q -c constraints.txt setuptools torch
	$(PIP) install -q --no-deps -r constraints.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@$(MAKE) --no-print-directory gl
	@touch $@

# The renderer of MuJoCo needs one of these libraries, OpenCV needs libGL and glib.
.PHONY: gl
gl:
	@if ! .venv/bin/robolearn doctor --gl >/dev/null 2>&1; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing the GL libraries: $(GL_PACKAGES)"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(GL_PACKAGES) >/dev/null; \
		else \
			echo "No off-screen renderer found. Run once: sudo apt-get install -y $(GL_PACKAGES)"; \
		fi; \
	fi

demo: install
	.venv/bin/robolearn demo

# Byte code is kept, whatever the environment says: compiling anew costs every worker 12 s, and every process that a test starts its share.
test: install
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTEST) -n 2 -m "not slow and not gpu"

test-slow: install
	$(PYTEST) -m slow

test-gpu: install
	@.venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
		|| { echo "SKIPPED: no CUDA device here, so none of the GPU tests ran"; exit 0; } \
		&& $(PYTEST) -m gpu

check: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

fmt: install
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: install
	@for name in loader render train policy record crash teleop memory; do .venv/bin/robolearn bench $$name --json data/bench/$$name.json || exit $$?; done

# Only the SDKs themselves, at the versions of pyproject.toml; one without a package for this machine must not keep the others away.
EXTRA = $$(.venv/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$$extra'])")

sdk: install
	@for extra in dynamixel feetech ur xarm franka franka-sim robotiq realsense deploy serve; do \
		if $(PIP) install -q -c constraints.txt $(EXTRA); then echo "$$extra: installed"; \
		else echo "$$extra: NOT installed (no package for this Python or machine); its robots stay unavailable"; fi; \
	done

# LiteRT runs two networks that are files of MediaPipe's package. HANDS=mediapipe also makes a Python of its own for MediaPipe
# itself, the reference: it wants another protobuf than the rest.
MEDIAPIPE = $$(.venv/bin/python -c "from robolearn.video.detectors import mediapipe; print(mediapipe.python().parent.parent)")

video: install
	@extra=video; if $(PIP) install -q -c constraints.txt $(EXTRA); then echo "video: installed"; \
	else echo "video: NOT installed (no package for this Python or machine); hand detection stays unavailable"; fi
	@.venv/bin/python -m robolearn.video.detectors._models && echo "hand networks: fetched, checksums verified"
	@if [ "$(HANDS)" = mediapipe ]; then $(MAKE) --no-print-directory mediapipe; fi

.PHONY: mediapipe
mediapipe: install
	.venv/bin/python -m venv $(MEDIAPIPE)
	$(MEDIAPIPE)/bin/python -m pip install -q --disable-pip-version-check \
		"opencv-python-headless>=4.10,<5" numpy matplotlib absl-py attrs flatbuffers "protobuf>=4.25,<6"
	$(MEDIAPIPE)/bin/python -m pip install -q --disable-pip-version-check --no-deps mediapipe==0.10.21
	@echo "mediapipe: installed, in a Python of its own"

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
