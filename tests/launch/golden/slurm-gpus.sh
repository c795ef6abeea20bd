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

# Of an array, this task alone: the array's id may be this job's own.
job=$SLURM_JOB_ID
trial=()
train=(
  python
  -m
  launch.train
  --config
  experiments/digits.py:stage1
  --workdir
  /shared/s1
  --config.seed=1
  '--config.ema=(0.9, 0.99)'
  --devices=gpu:32
  --max_attempts=5
)
# The signal ahead of the time limit comes to this shell alone; srun, given it, would kill
# the processes rather than pass it on.
trap 'signalled=1; scancel --signal=TERM "$job"' TERM
srun --output=/shared/s1/logs/slurm-%j-process-%t.log --open-mode=append \
  --kill-on-bad-exit=0 --wait=120 "${train[@]}" "${trial[@]}" &
step=$!
signalled=1
while [[ -n $signalled ]]; do # a signal ends the wait, not the step
  signalled=
  wait "$step"
  code=$?
done
trap - TERM

echo "$(date -u +%FT%TZ) job $job restart ${SLURM_RESTART_COUNT:-0}: exit code $code"
case $code in
  74 | 75 | 124 | 12[89] | 1[3-9]? | 2??) ;;
  # Unforeseen, and perhaps before launch.train began to count.
  1) if ((${SLURM_RESTART_COUNT:-0} >= 5)); then exit 1; fi ;;
  *) exit "$code" ;;
esac
# A job that its user cancelled stays cancelled.
if scontrol show job -o "$job" | grep -q 'JobState=RUNNING'; then
  scontrol requeue "$job"
fi
exit "$code"
