#!/usr/bin/env bash
# Runs on every worker: installs once, then trains until the run is done or must stop.
set -uo pipefail
cd "$HOME" || exit 1
[[ ! -e exit-code ]] || exit 0

if [[ ! -e ul/.installed ]]; then
  mkdir -p ul && tar -xzf code.tgz -C ul && cd ul &&
    python3 -m pip install -q --user uv &&
    python3 -m uv venv -q --clear --python 3.11 .venv &&
    VIRTUAL_ENV=.venv python3 -m uv pip install -q -c constraints.txt -e '.[tpu]' &&
    touch .installed || exit 1
fi
cd "$HOME/ul" || exit 1

train=(
  %{train}
)
unexpected=0
while true; do
  "${train[@]}"
  code=$?
  echo "$(date -u +%FT%TZ) exit code $code"
  case $code in
    74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) unexpected=0 ;;
    # An unexpected error, perhaps before `ul train` counted this start.
    1) if ((++unexpected >= %{max_attempts})); then break; fi ;;
    *) break ;;
  esac
  sleep 10
done
echo "$code" >"$HOME/exit-code"
