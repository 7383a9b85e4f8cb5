#!/usr/bin/env bash
# Open-ended question answering on MSR-VTT. Paths, beside those of scripts/fine_tune.sh:
#   QUESTIONS (folder of {train,val,test}.jsonl and train_ans2label.json), VIDEOS, OBJECT_PATH
# Answers are classified; the released objective (first token over the vocabulary): --behaviour released
set -euo pipefail
source "$(dirname "$0")/fine_tune.sh"
QUESTIONS="${QUESTIONS:-$VIDEO_DATA/MSRVTT/msrvtt_qa_annotation}"
fine_tune eval_qa --datatype msrvtt_qa --epochs 5 --batch_size 6 --batch_size_val 32 --max_words 32 \
  --num_thread_reader 4 --eval_every 1000000 --save_every 1000 \
  --msrvtt_qa_train_json "$QUESTIONS/train.jsonl" --msrvtt_qa_val_json "$QUESTIONS/val.jsonl" \
  --msrvtt_qa_test_json "$QUESTIONS/test.jsonl" --msrvtt_qa_anslabel_json "$QUESTIONS/train_ans2label.json" \
  --msrvtt_features_path "${VIDEOS:-$VIDEO_DATA/MSRVTT/MSRVTT_Videos}" \
  --object_path "${OBJECT_PATH:-$OBJECTS/msr_vtt}" "${OBJECT_FLAGS[@]}" "$@"
