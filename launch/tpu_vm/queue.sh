#!/usr/bin/env bash
# Keeps a queued resource until the run is over. It requests the resource and starts the
# run on all workers; if the resource is taken away, it deletes the rest and requests it
# again. Stopping this script stops neither the run nor the bill for its machines; started
# again, it watches the same run.
set -uo pipefail
name=%{name}
location=(
  %{location}
)
script_dir=$(cd "$(dirname "$0")" && pwd)

state() {
  local output
  if output=$(gcloud compute tpus queued-resources describe "$name" "${location[@]}" \
    --quiet --format='value(state.state)' 2>&1); then
    tail -n 1 <<<"$output"
  elif [[ $output == *NOT_FOUND* ]]; then
    echo NONE
  else
    echo "UNKNOWN: $output"
  fi
}

create() {
  gcloud compute tpus queued-resources create "$name" "${location[@]}" --node-id="$name" \
    --quiet \
    %{request}
}

delete() {
  gcloud compute tpus queued-resources delete "$name" "${location[@]}" --force --quiet
}

on_all() {
  gcloud compute tpus tpu-vm ssh "$name" "${location[@]}" --worker=all --quiet \
    --command="$1"
}

send() {
  gcloud compute tpus tpu-vm scp "$script_dir/code.tgz" "$script_dir/worker.sh" "$name:" \
    "${location[@]}" --worker=all --quiet
}

last_log_line() {
  gcloud compute tpus tpu-vm ssh "$name" "${location[@]}" --worker=0 --quiet \
    --command='tail -c 2000 train.log | tr "\r" "\n" | tail -n 1' 2>/dev/null
}

# Does nothing on a worker that runs already or has ended.
start() {
  on_all 'test -e worker.sh' 2>/dev/null || send &&
    on_all 'setsid -f flock -n .run-lock bash worker.sh >>train.log 2>&1 </dev/null'
}

git -C %{root} diff --quiet HEAD || echo "uncommitted changes are not sent" >&2
git -C %{root} archive --format=tar.gz --output="$script_dir/code.tgz" HEAD || exit 64

last=''
line=''
requests=0
while true; do
  now=$(state)
  [[ $now == "$last" ]] || echo "$(date -u +%FT%TZ) $name: $now"
  last=$now
  case $now in
    NONE)
      if ((requests++ >= %{max_attempts})); then
        echo "$name: %{max_attempts} requests in a row never became active; giving up"
        exit 69
      fi
      create || exit 1
      ;;
    ACTIVE)
      requests=0
      start || echo "$name: the workers cannot be reached; trying again"
      new_line=$(last_log_line)
      [[ -z $new_line || $new_line == "$line" ]] || echo "$name: $new_line"
      line=$new_line
      codes=$(on_all 'sed s/^/exit-code=/ exit-code 2>/dev/null || true' |
        sed -n 's/^exit-code=//p' | sort -rn)
      if [[ -n $codes ]]; then
        code=${codes%%$'\n'*}
        on_all 'hostname; tail -n 1000 train.log' >"$script_dir/workers.log"
        echo "$name: ended with exit code $code; logs: $script_dir/workers.log"
        delete
        exit "$code"
      fi
      ;;
    SUSPENDED | FAILED) delete ;;
  esac
  sleep %{poll_seconds}
done
