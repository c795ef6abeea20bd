#!/usr/bin/env bash
# Keeps a queued resource until the run is over: asks for it, starts the run on all its
# workers, and when it is taken away deletes what is left and asks again. Started again,
# it goes on where the run is. Stopped, it leaves the run alone (and the machines paid).
set -uo pipefail
name=%{name}
where=(
  %{where}
)
here=$(cd "$(dirname "$0")" && pwd)

state() {
  local said
  if said=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format='value(state.state)' 2>&1); then
    tail -n 1 <<<"$said"
  elif [[ $said == *NOT_FOUND* ]]; then
    echo NONE
  else
    echo "UNKNOWN: $said"
  fi
}

create() {
  gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --quiet \
    %{request}
}

delete() {
  gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

on_all() {
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"
}

send() {
  gcloud compute tpus tpu-vm scp "$here/code.tgz" "$here/worker.sh" "$name:" \
    "${where[@]}" --worker=all
}

# Does nothing on a worker where it runs or has ended.
start() {
  on_all 'test -e worker.sh' 2>/dev/null || send &&
    on_all 'setsid -f flock -n .run-lock bash worker.sh >>train.log 2>&1 </dev/null'
}

git -C %{root} diff --quiet HEAD || echo "what is not committed is not sent" >&2
git -C %{root} archive --format=tar.gz --output="$here/code.tgz" HEAD || exit 64

last=
while true; do
  now=$(state)
  [[ $now == "$last" ]] || echo "$(date -u +%FT%TZ) $name: $now"
  last=$now
  case $now in
    NONE) create || exit 1 ;;
    ACTIVE)
      start
      codes=$(on_all 'sed s/^/exit-code=/ exit-code 2>/dev/null || true' |
        sed -n 's/^exit-code=//p' | sort -rn)
      if [[ -n $codes ]]; then
        code=${codes%%$'\n'*}
        on_all 'hostname; tail -n 1000 train.log' >"$here/workers.log"
        echo "$name: ended with exit code $code; logs: $here/workers.log"
        delete
        exit "$code"
      fi
      ;;
    SUSPENDED | FAILED) delete ;;
  esac
  sleep %{poll_seconds}
done
