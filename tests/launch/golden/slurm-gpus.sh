#!/usr/bin/env bash
#SBATCH --job-name=digits-stage1
#SBATCH --chdir=/repo
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --output=/shared/s1/logs/slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --time=2-00:00:00
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --partition=gpu
#SBATCH --account=lab
set -uo pipefail

# In an array $SLURM_JOB_ID may stand for the whole array; `job` names this task alone.
job=$SLURM_JOB_ID
trial=()
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
  74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) ;;
  # An unexpected error, perhaps before `ul train` counted this start.
  1) if ((${SLURM_RESTART_COUNT:-0} >= 5)); then exit 1; fi ;;
  *) exit "$code" ;;
esac
# A job that its user cancelled stays cancelled.
if scontrol show job -o "$job" | grep -q 'JobState=RUNNING'; then
  scontrol requeue "$job"
fi
exit "$code"
