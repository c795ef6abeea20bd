#!/usr/bin/env bash
JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 python -m ul train --config experiments/digits.py:stage1 --workdir /data/s1 --config.seed=1 '--config.ema=(0.9, 0.99)' --devices=cpu:8 --max_attempts=5 --coordinator=127.0.0.1:12345 --num_processes=2 --process_id=0 >>/data/s1/logs/process-0.log 2>&1 &
JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 python -m ul train --config experiments/digits.py:stage1 --workdir /data/s1 --config.seed=1 '--config.ema=(0.9, 0.99)' --devices=cpu:8 --max_attempts=5 --coordinator=127.0.0.1:12345 --num_processes=2 --process_id=1 >>/data/s1/logs/process-1.log 2>&1 &
wait
