#!/usr/bin/env bash
# On every worker: install once, then train until done or until no rerun helps.
set -uo pipefail
cd "$HOME" || exit 1
[[ ! -e exit-code ]] || exit 0

if [[ ! -e ul/.installed ]]; then
  mkdir -p ul && tar -xzf code.tgz -C ul && cd ul &&
    python3 -m pip install -q --user uv &&
    python3 -m uv venv -q --clear --python 3.12 .venv &&
    VIRTUAL_ENV=.venv python3 -m uv pip install -q -c constraints.txt -e '.[tpu]' &&
    touch .installed || exit 1
fi
cd "$HOME/ul" || exit 1

train=(
  %{train}
)
unforeseen=0
while true; do
  "${train[@]}"
  code=$?
  echo "$(date -u +%FT%TZ) exit code $code"
  case $code in
    74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) unforeseen=0 ;;
    # Perhaps before launch.train began to count.
    1) if ((++unforeseen >= %{max_attempts})); then break; fi ;;
    *) break ;;
  esac
  sleep 10
done
echo "$code" >"$HOME/exit-code"
