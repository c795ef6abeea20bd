#!/usr/bin/env bash
#SBATCH --job-name=digits-stage1
#SBATCH --chdir=/repo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=/shared/s1/logs/slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --array=0-2%2
#SBATCH --partition=gpu
#SBATCH --account=lab
set -uo pipefail

# Of an array, this task alone: the array's id may be this job's own.
job=$SLURM_JOB_ID
job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
trial=()
case $SLURM_ARRAY_TASK_ID in
  0) trial=(--workdir /shared/s1/low --config.loss.factor=1.5) ;;
  1) trial=(--workdir /shared/s1/high --config.loss.factor=2.5 --config.loss.bias=3) ;;
  2) trial=(--workdir '/shared/s1/two words' '--config.ema=(0.9, 0.99)') ;;
esac
train=(
  python
  -m
  launch.train
  --config
  experiments/digits.py:stage1
  --config.seed=1
  '--config.ema=(0.9, 0.99)'
  --max_attempts=5
)
# The signal ahead of the time limit comes to this shell alone; srun, given it, would kill
# the processes rather than pass it on.
trap 'scancel --signal=TERM "$job"' TERM
srun --output=/shared/s1/logs/slurm-%A_%a-process-%t.log --open-mode=append \
  --kill-on-bad-exit=0 --wait=120 "${train[@]}" "${trial[@]}" &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do # a signal ended the wait, not the step
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
