#!/usr/bin/env bash
# Text-video retrieval on MSR-VTT (9k training videos, 1k-A test). Paths, beside those of scripts/fine_tune.sh:
#   TRAIN_CSV, CAPTIONS (MSRVTT_data.json), VAL_CSV (the test list; or, with TEST_CSV, the validation list), TEST_CSV,
#   VIDEOS, OBJECT_PATH
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
fine_tune eval_retrieval --datatype msrvtt_retrieval --epochs 5 --batch_size 8 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 4 --eval_every 500 --save_every 1000 \
  --train_csv "${TRAIN_CSV:-$VIDEO_DATA/json_files/MSRVTT_train.9k.csv}" \
  --val_csv "${VAL_CSV:-$VIDEO_DATA/json_files/MSRVTT_JSFUSION_test.csv}" ${TEST_CSV:+--test_csv "$TEST_CSV"} \
  --data_path "${CAPTIONS:-$VIDEO_DATA/json_files/MSRVTT_data.json}" \
  --features_path "${VIDEOS:-$VIDEO_DATA/MSRVTT/MSRVTT_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/msr_vtt}" "${OBJECT_FLAGS[@]}" "$@"
