#!/usr/bin/env bash
# Multiple choice on MSR-VTT, without objects as released; with objects and the matching head by further arguments:
#   bash scripts/mc_msrvtt.sh --need_object --use_action --object_path data/object_feature/msr_vtt
# Paths, beside those of scripts/fine_tune.sh:
#   TRAIN_CSV, CAPTIONS (MSRVTT_data.json), VAL_CSV (mc_test.jsonl; or, with TEST_CSV, the validation questions), TEST_CSV,
#   VIDEOS
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_mc --datatype msrvtt_mc --epochs 5 --batch_size 8 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 4 --eval_every 500 --save_every 1000 \
  --train_csv "${TRAIN_CSV:-$VIDEO_DATA/json_files/MSRVTT_train.9k.csv}" \
  --val_csv "${VAL_CSV:-$VIDEO_DATA/json_files/mc_test.jsonl}" ${TEST_CSV:+--test_csv "$TEST_CSV"} \
  --data_path "${CAPTIONS:-$VIDEO_DATA/json_files/MSRVTT_data.json}" \
  --features_path "${VIDEOS:-$VIDEO_DATA/MSRVTT/MSRVTT_Videos}" "$@"
