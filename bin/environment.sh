# Sourced by bin/test, bin/quickstart, bin/reproduce and .ci/run: makes .venv in
# the checkout.
# shellcheck shell=bash

# make_environment runtime|dev|ci
#
# Installs requirements.txt into .venv (`dev`: also pytest, ruff, mypy and this
# package, editable; `ci`: also torch and transformers, of the extra `interop`),
# unless a stamp says that is done for these very files.
# Safe to interrupt: the next call starts the environment afresh.
make_environment() {
  local kind="$1"
  local root
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
  (
    cd "$root" || exit
    # Two callers at once would spoil each other's installation.
    exec 9<. && flock 9
    _install "$kind" </dev/null
  )
}

_install() {
  local kind="$1"
  local python=.venv/bin/python stamp
  # The path is in it because a copied .venv still points to the old checkout.
  stamp="$({ pwd -P; cat requirements.txt pyproject.toml; } | sha256sum)"
  local kinds=(runtime dev ci) extras="dev" each
  # An environment serves what asks for less.
  while [[ "${kinds[0]}" != "$kind" ]]; do kinds=("${kinds[@]:1}"); done
  for each in "${kinds[@]}"; do
    if [[ "$(cat ".venv/stamp-$each" 2>/dev/null)" == "$stamp" ]]; then
      return
    fi
  done

  if [[ -e .venv/installing ]] || ! "$python" -m pip --version &>/dev/null; then
    _make_empty_venv
  fi
  rm -f .venv/stamp-*
  touch .venv/installing
  local pip=("$python" -m pip install -qq --no-input
    --disable-pip-version-check --progress-bar off)
  echo "Installing the pinned packages into .venv (about 2 minutes," \
    "2.7 GB)..." >&2
  "${pip[@]}" --requirement requirements.txt || _fail_to_install
  if [[ "$kind" == ci ]]; then extras="dev,interop"; fi
  if [[ "$kind" != runtime ]]; then
    "${pip[@]}" --constraint requirements.txt --no-build-isolation \
      --editable ".[$extras]" || _fail_to_install
  fi
  echo "$stamp" >".venv/stamp-$kind"
  rm .venv/installing
}

_make_empty_venv() {
  rm -rf .venv
  if python3.11 -m venv .venv &>/dev/null; then return; fi
  rm -rf .venv
  if uv venv --quiet --seed --python 3.11 .venv &>/dev/null; then return; fi
  echo "$0: error: no working python3.11 found; install Python 3.11 with its" \
    "venv module, or uv, and run this again." >&2
  exit 1
}

_fail_to_install() {
  echo "$0: error: installing failed, see above; run this again." >&2
  exit 1
}
