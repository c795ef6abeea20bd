#!/usr/bin/env bash
#SBATCH --job-name=loss-factor
#SBATCH --chdir=/repo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=/shared/sweep/logs/slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --array=0-4%2
#SBATCH --gpus-per-node=1
#SBATCH --partition=gpu
set -uo pipefail

# In an array $SLURM_JOB_ID may stand for the whole array; `job` names this task alone.
job=$SLURM_JOB_ID
job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
trial=()
case $SLURM_ARRAY_TASK_ID in
  0) trial=(--trial=factor1.3) ;;
  1) trial=(--trial=factor1.5) ;;
  2) trial=(--trial=factor1.7) ;;
  3) trial=(--trial=factor1.9) ;;
  4) trial=(--trial=factor2.1) ;;
esac
export JAX_OPTIMIZATION_LEVEL=O1
export NCCL_NVLS_ENABLE=1
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
train=(
  python
  -m
  ul
  sweep
  experiments/sweeps/loss_factor.py
  --out
  /shared/sweep
  --set=seed=1
  --devices=gpu:1
  --max_attempts=5
)
# SLURM sends the signal before the time limit only to this shell. srun would kill the
# processes if it got the signal, so scancel sends it to them directly.
trap 'signalled=1; scancel --signal=TERM "$job"' TERM
srun --output=/shared/sweep/logs/slurm-%A_%a-process-%t.log --open-mode=append \
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
starts=/shared/sweep/logs/short-starts-$job
count=$(cat "$starts" 2>/dev/null || echo "${SLURM_RESTART_COUNT:-0}")
if ((SECONDS < 600)); then count=$((count + 1)); else count=0; fi
echo "$count" 2>/dev/null >"$starts"
if ((count >= 5)); then
  echo "$count starts in a row ended within 600 s; the job is not requeued"
  exit "$code"
fi
# A job that its user cancelled stays cancelled.
if scontrol show job -o "$job" | grep -q 'JobState=RUNNING'; then
  scontrol requeue "$job"
fi
exit "$code"
