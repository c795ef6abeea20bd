#!/usr/bin/env bash
python -m ul train --config experiments/digits.py:stage1 --workdir /data/s1 --config.seed=1 '--config.ema=(0.9, 0.99)' --max_attempts=5 >>/data/s1/logs/process-0.log 2>&1 &
wait
