#!/usr/bin/env bash
#SBATCH --job-name=%{name}
#SBATCH --chdir=%{cwd}
#SBATCH --nodes=%{nodes}
#SBATCH --ntasks-per-node=%{tasks_per_node}
#SBATCH --output=%{output}/slurm-%{id}.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@%{stop_seconds}
%{sbatch}
set -uo pipefail

# In an array $SLURM_JOB_ID may stand for the whole array; `job` names this task alone.
job=$SLURM_JOB_ID
%{array}
trial=()
%{trials}
%{cpus}
%{env}
train=(
  %{train}
)
# SLURM sends the signal before the time limit only to this shell. srun would kill the
# processes if it got the signal, so scancel sends it to them directly.
trap 'signalled=1; scancel --signal=TERM "$job"' TERM
srun --output=%{output}/slurm-%{id}-process-%t.log --open-mode=append \
  --kill-on-bad-exit=0 --wait=120 "${train[@]}" "${trial[@]}" &
step=$!
signalled=1
while [[ -n $signalled ]]; do # a signal ends `wait`, but not the step
  signalled=
  wait "$step"
  code=$?
done
trap - TERM

echo "$(date -u +%FT%TZ) job $job restart ${SLURM_RESTART_COUNT:-0}: exit code $code"
case $code in
  1 | 74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) ;;
  *) exit "$code" ;;
esac
# `ul train` counts its starts, but not those that end before it can write to the workdir.
# Those are short. If the count cannot be stored, every restart counts.
starts=%{logs}/short-starts-$job
count=$(cat "$starts" 2>/dev/null || echo "${SLURM_RESTART_COUNT:-0}")
if ((SECONDS < %{short_seconds})); then count=$((count + 1)); else count=0; fi
echo "$count" 2>/dev/null >"$starts"
if ((count >= %{max_attempts})); then
  echo "$count starts in a row ended within %{short_seconds} s; the job is not requeued"
  exit "$code"
fi
# A job that its user cancelled stays cancelled.
if scontrol show job -o "$job" | grep -q 'JobState=RUNNING'; then
  scontrol requeue "$job"
fi
exit "$code"
