#!/usr/bin/env bash
#SBATCH --job-name=digits-stage1
#SBATCH --chdir=/repo
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --output=/shared/s1/logs/slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --gpus-per-node=8
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=high
set -uo pipefail

# In an array $SLURM_JOB_ID may stand for the whole array; `job` names this task alone.
job=$SLURM_JOB_ID
trial=()
export JAX_OPTIMIZATION_LEVEL=O1
export NCCL_NVLS_ENABLE=1
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
train=(
  python
  -m
  ul
  train
  --config
  experiments/digits.py:stage1
  --workdir
  /shared/s1
  --config.seed=1
  '--config.ema=(0.9, 0.99)'
  --devices=gpu:32
  --max_attempts=5
)
# SLURM sends the signal before the time limit only to this shell. srun would kill the
# processes if it got the signal, so scancel sends it to them directly.
trap 'signalled=1; scancel --signal=TERM "$job"' TERM
srun --output=/shared/s1/logs/slurm-%j-process-%t.log --open-mode=append \
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
starts=/shared/s1/logs/short-starts-$job
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
