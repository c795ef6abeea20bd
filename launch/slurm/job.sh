#!/usr/bin/env bash
#SBATCH --job-name=%{name}
#SBATCH --chdir=%{cwd}
#SBATCH --nodes=%{nodes}
#SBATCH --ntasks-per-node=%{tasks_per_node}
#SBATCH --output=%{logs}/slurm-%{id}.log
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
train=(
  %{train}
)
# SLURM sends the signal before the time limit only to this shell. srun would kill the
# processes if it got the signal, so scancel sends it to them directly.
trap 'signalled=1; scancel --signal=TERM "$job"' TERM
srun --output=%{logs}/slurm-%{id}-process-%t.log --open-mode=append \
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
  74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) ;;
  # An unexpected error, perhaps before `ul train` counted this start.
  1) if ((${SLURM_RESTART_COUNT:-0} >= %{max_attempts})); then exit 1; fi ;;
  *) exit "$code" ;;
esac
# A job that its user cancelled stays cancelled.
if scontrol show job -o "$job" | grep -q 'JobState=RUNNING'; then
  scontrol requeue "$job"
fi
exit "$code"
