#!/usr/bin/env bash
# Runs on every worker: installs once, then trains until the run is done or must stop.
set -uo pipefail
cd "$HOME" || exit 1
[[ ! -e exit-code ]] || exit 0

install() {
  mkdir -p ul && tar -xzf code.tgz -C ul && cd ul &&
    python3 -m pip install -q --user uv &&
    python3 -m uv venv -q --clear --python 3.11 .venv &&
    VIRTUAL_ENV=.venv python3 -m uv pip install -q -c constraints.txt -e '.[tpu]' &&
    touch .installed
}

tries=0
until [[ -e ul/.installed ]] || (install); do
  echo "$(date -u +%FT%TZ) installation failed"
  if ((++tries >= %{max_attempts})); then
    echo 1 >exit-code
    exit 1
  fi
  sleep 10
done
cd "$HOME/ul" || exit 1

%{env}
train=(
  %{train}
)
# `ul train` counts its starts, but not those that end before it can write to the workdir.
# Those are short.
short_starts=0
while true; do
  began=$SECONDS
  "${train[@]}"
  code=$?
  echo "$(date -u +%FT%TZ) exit code $code"
  case $code in
    1 | 74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) ;;
    *) break ;;
  esac
  if ((SECONDS - began < %{short_seconds})); then
    if ((++short_starts >= %{max_attempts})); then
      echo "$short_starts starts in a row ended within %{short_seconds} s; giving up"
      break
    fi
  else
    short_starts=0
  fi
  sleep 10
done
echo "$code" >"$HOME/exit-code"
