#!/usr/bin/env bash
# From a fresh clone to fine-tuned models: bash scripts/quickstart.sh [--smoke] [--score_many] [--compare]
#
# Sets up .venv, renders a world of captioned demo clips with detections, writes shards, pre-trains a small model with
# objects and actions, fine-tunes it for question answering, captioning, retrieval and multiple choice, and prints their
# scores on held-out clips.
# 30 to 45 minutes on 2 cores; run again it goes on where it was. --smoke: the same path on a handful of clips.
# --score_many: scores every task on 500 more clips too, since of 100 clips several percent are chance.
# --compare: adds the same without objects and actions, and compares both on these clips; and question answering on
# clips of things of one shape, with both rules of --trajectory.
# SEED=N trains from other random values and in another order, on the same clips, in a folder of its own.
# Results: output/quickstart/report.html, a page to look at, and summary.json (OUTPUT_DIR changes the folder). At the
# end stands the command that writes a model as a folder to hand on.
set -euo pipefail
START=$(date +%s)
SMOKE="" COMPARE="" MANY="" SEED="${SEED:-}"
for argument in "$@"; do
  case "$argument" in
    --smoke) SMOKE=1 ;;
    --score_many) MANY=1 ;;
    --compare) COMPARE=1 MANY=1 ;;
    *) echo "unknown argument $argument; usage: bash scripts/quickstart.sh [--smoke] [--score_many] [--compare]" >&2; exit 2 ;;
  esac
done
source "$(dirname "$0")/environment.sh" requirements.txt
OUT="${OUTPUT_DIR:-$ROOT/output/quickstart${SMOKE:+-smoke}${SEED:+-seed$SEED}}"
case "$OUT" in /*) ;; *) OUT="$PWD/$OUT" ;; esac
cd "$ROOT"
mkdir -p "$OUT"
if [ -n "$SMOKE" ]; then
  CLIPS=128 HELD_OUT=12 QUERIES=20 EPOCHS=2 ANSWER_EPOCHS=1 CAPTION_EPOCHS=1 RETRIEVAL_EPOCHS=1 SHAPE_EPOCHS=1 SHOW=4
else
  CLIPS=6500 HELD_OUT=100 QUERIES=500 EPOCHS=4 ANSWER_EPOCHS=4 CAPTION_EPOCHS=5 RETRIEVAL_EPOCHS=3 SHAPE_EPOCHS=3 SHOW=20
fi
source "$ROOT/scripts/demo.sh"
[ -z "$SEED" ] || COMMON+=(--seed "$SEED")

: > "$OUT/seconds.tsv"
stage() { # name, command...: run it and note its seconds
  local name="$1" begin
  begin=$(date +%s)
  shift
  echo "== $name"
  "$@"
  printf '%s\t%s\n' "$name" "$(($(date +%s) - begin))" >> "$OUT/seconds.tsv"
}
printf 'setup\t%s\n' "$(($(date +%s) - START))" >> "$OUT/seconds.tsv"

run_task() { # task, flags...
  local task="$1" start=("$PY")
  shift
  # For one process a launcher would only load PyTorch once more.
  [ "$PROCESSES" = 1 ] || start+=(-m torch.distributed.run --standalone --nproc_per_node "$PROCESSES")
  OMP_NUM_THREADS="$THREADS" "${start[@]}" "tasks/$task.py" "$@"
}

pretrain() { # output folder, further flags...
  local folder="$1"
  shift
  run_task pre_training --do_train --output_dir "$folder" "${COMMON[@]}" --epochs "$EPOCHS" \
    --train_csv "$OUT/shards" --data_path "$OUT/shards/frozen_train_labels.json" \
    --val_csv "$OUT/demo/msrvtt/test.csv" --val_features_path "$OUT/demo/msrvtt/videos" \
    "${RATES[@]}" "${PRETRAINING[@]}" "$@"
}

TUNED_ON="$OUT/demo/msrvtt"
tune() { # task, output folder, checkpoint to start from, epochs, further flags...
  local task="$1" folder="$2" start="$3" epochs="$4"
  shift 4
  run_task "$task" --do_train --output_dir "$folder" --init_model "$start" "${COMMON[@]}" --epochs "$epochs" \
    --data_path "$TUNED_ON/MSRVTT_data.json" --features_path "$TUNED_ON/videos" --frame_cache "$OUT/frames" \
    "${RATES[@]}" "$@"
}

# What answers questions knows what belongs to what, but only the pre-trained model has heads for captions and matching;
# they are trained further, not anew.
caption() { # output folder, question answering's folder, pre-training's folder, further flags...
  tune eval_captioning "$1" "$2/best.bin" "$CAPTION_EPOCHS" --init_heads "$3/restore.bin" "${CAPTIONING[@]}" "${@:4}"
  "$PY" utils/demo_score.py "$1/predictions.json" "$OUT/demo/msrvtt/truth.json"
}

# What has learned captions reads objects, so it ranks the first ones again. Only the similarity, which does not, is
# learned, in half the time per clip.
RANKING=(--rerank_by caption --rerank_top 10)
retrieve() { # output folder, captioning's folder (it knows what to look at), pre-training's folder, further flags...
  tune eval_retrieval "$1" "$2/best.bin" "$RETRIEVAL_EPOCHS" --init_heads "$3/restore.bin" "${RETRIEVAL[@]}" \
    "${RANKING[@]}" --every_epochs "$RETRIEVAL_EPOCHS" --loss_weights vtm=0 --train_csv "$OUT/demo/msrvtt/train.csv" \
    --val_csv "$OUT/demo/msrvtt/val.csv" --test_csv "$OUT/demo/msrvtt/test.csv" "${@:4}"
}

# Its similarity is that of retrieval, so it goes on from there; half an epoch is enough for the matching head.
choose() { # output folder, retrieval's folder, further flags...
  tune eval_mc "$1" "$2/best.bin" 1 --max_steps 50 "${RETRIEVAL[@]}" --train_csv "$OUT/demo/msrvtt/train.csv" \
    --val_csv "$OUT/demo/msrvtt/mc_val.jsonl" --test_csv "$OUT/demo/msrvtt/mc_test.jsonl" "${@:3}"
}

answer() { # output folder, checkpoint to start from, epochs, further flags...
  tune eval_qa "$1" "$2" "$3" "${ANSWERING[@]}" --msrvtt_qa_train_json "$TUNED_ON/qa/train.jsonl" \
    --msrvtt_qa_val_json "$TUNED_ON/qa/val.jsonl" --msrvtt_qa_test_json "$TUNED_ON/qa/test.jsonl" \
    --msrvtt_qa_anslabel_json "$TUNED_ON/qa/train_ans2label.json" "${@:4}"
}

choose_among_many() { # with the options of QUERIES clips: of 100 questions several are right or wrong by chance
  local clips="$OUT/queries/msrvtt"
  run_task eval_mc --do_eval --output_dir "$OUT/multiple_choice_more_clips" --init_model "$OUT/multiple_choice/best.bin" \
    "${COMMON[@]}" --data_path "$clips/MSRVTT_data.json" --features_path "$clips/videos" --val_csv "$clips/mc_test.jsonl" \
    "${OBJECTS[@]}" --object_path "$clips/objects"
}

score_zero_shot() { # ending of the folders' names, further flags...: the pre-trained model on QUERIES held-out clips
  local ending="$1" clips="$OUT/queries/msrvtt"
  shift
  run_task pre_training --do_eval --output_dir "$OUT/queries$ending/pretrain" --init_model "$OUT/pretrain$ending/restore.bin" \
    "${COMMON[@]}" --train_csv "$OUT/shards" --data_path "$OUT/shards/frozen_train_labels.json" --eval_samples "$BATCH" \
    --val_csv "$clips/test.csv" --val_features_path "$clips/videos" "$@"
}

score_many() { # ending of the folders' names, further flags...: every task on QUERIES held-out clips
  local ending="$1" clips="$OUT/queries/msrvtt" folder="$OUT/queries$1"
  shift
  local flags=("${COMMON[@]}" --features_path "$clips/videos" --data_path "$clips/MSRVTT_data.json" --do_eval)
  run_task eval_retrieval --output_dir "$folder/retrieval" --init_model "$OUT/retrieval$ending/best.bin" \
    "${flags[@]}" "${RANKING[@]}" --val_csv "$clips/test.csv" "$@"
  run_task eval_captioning --output_dir "$folder/captioning" --init_model "$OUT/captioning$ending/best.bin" \
    "${flags[@]}" --beam_size 5 "$@"
  "$PY" utils/demo_score.py "$folder/captioning/predictions.json" "$clips/truth.json"
  run_task eval_qa --output_dir "$folder/question_answering" \
    --init_model "$OUT/question_answering$ending/best.bin" "${flags[@]}" --msrvtt_qa_test_json "$clips/qa/test.jsonl" "$@"
}

stage render "$PY" utils/make_demo_data.py --output_dir "$OUT/demo" --train_clips "$CLIPS" --val_clips "$HELD_OUT" \
  --test_clips "$HELD_OUT" --reserve "$QUERIES" --msvd_clips 0 --lsmdc_clips 0 --didemo_clips 0 \
  --feature_framerate "$RATE" --max_frames "$FRAMES" --workers 2
stage clip "$PY" utils/make_random_clip.py --preset demo --output "$OUT/clip.pt" --seed "${SEED:-0}"
stage shards "$PY" utils/webvid_to_tfrecord.py --csv "$OUT/demo/webvid/results_demo_train.csv" \
  --video_dir "$OUT/demo/webvid/videos" --output_dir "$OUT/shards" --size 64 --feature_framerate "$RATE" --workers 2
stage pretrain pretrain "$OUT/pretrain" "${OBJECTS[@]}" --object_path "$OUT/demo/webvid/objects" \
  --val_object_path "$OUT/demo/msrvtt/objects"
MSRVTT_OBJECTS=("${OBJECTS[@]}" --object_path "$OUT/demo/msrvtt/objects")
stage question_answering answer "$OUT/question_answering" "$OUT/pretrain/restore.bin" "$ANSWER_EPOCHS" "${MSRVTT_OBJECTS[@]}"
stage captioning caption "$OUT/captioning" "$OUT/question_answering" "$OUT/pretrain" "${MSRVTT_OBJECTS[@]}"
stage retrieval retrieve "$OUT/retrieval" "$OUT/captioning" "$OUT/pretrain" "${MSRVTT_OBJECTS[@]}"
stage multiple_choice choose "$OUT/multiple_choice" "$OUT/retrieval" "${MSRVTT_OBJECTS[@]}"
stage render_queries "$PY" utils/make_demo_data.py --output_dir "$OUT/queries" --train_clips 1 --val_clips 0 \
  --test_clips "$QUERIES" --msvd_clips 0 --lsmdc_clips 0 --didemo_clips 0 \
  --feature_framerate "$RATE" --max_frames "$FRAMES" --workers 2
stage multiple_choice_more_clips choose_among_many
stage alignment env OMP_NUM_THREADS="$THREADS" "$PY" utils/score_alignment.py "$OUT/pretrain/restore.bin" --data "$OUT/queries/msrvtt" \
  --clips "$QUERIES" --output "$OUT/alignment.json"
if [ -n "$MANY" ]; then
  stage queries_zero_shot score_zero_shot "" "${OBJECTS[@]}" --object_path "$OUT/demo/webvid/objects" \
    --val_object_path "$OUT/queries/msrvtt/objects"
  stage queries score_many "" "${OBJECTS[@]}" --object_path "$OUT/queries/msrvtt/objects"
fi
if [ -n "$COMPARE" ]; then
  WITHOUT=_without_objects
  stage "pretrain$WITHOUT" pretrain "$OUT/pretrain$WITHOUT"
  stage "question_answering$WITHOUT" answer "$OUT/question_answering$WITHOUT" "$OUT/pretrain$WITHOUT/restore.bin" "$ANSWER_EPOCHS"
  stage "captioning$WITHOUT" caption "$OUT/captioning$WITHOUT" "$OUT/question_answering$WITHOUT" "$OUT/pretrain$WITHOUT"
  stage "retrieval$WITHOUT" retrieve "$OUT/retrieval$WITHOUT" "$OUT/captioning$WITHOUT" "$OUT/pretrain$WITHOUT"
  stage "multiple_choice$WITHOUT" choose "$OUT/multiple_choice$WITHOUT" "$OUT/retrieval$WITHOUT"
  stage "queries_zero_shot$WITHOUT" score_zero_shot "$WITHOUT"
  stage "queries$WITHOUT" score_many "$WITHOUT"
  for task in retrieval captioning question_answering; do
    echo "== with objects and actions (A) and without (B): $task"
    "$PY" utils/compare_runs.py "$OUT/queries/$task/metrics.json" "$OUT/queries$WITHOUT/$task/metrics.json"
  done
  stage render_same_shape "$PY" utils/make_demo_data.py --output_dir "$OUT/same_shape" --same_shape --train_clips "$CLIPS" \
    --val_clips "$HELD_OUT" --test_clips "$QUERIES" --msvd_clips 0 --lsmdc_clips 0 --didemo_clips 0 \
    --feature_framerate "$RATE" --max_frames "$FRAMES" --workers 2
  TUNED_ON="$OUT/same_shape/msrvtt"
  for rule in track class; do
    stage "same_shape_$rule" answer "$OUT/same_shape_$rule" "$OUT/question_answering/best.bin" "$SHAPE_EPOCHS" \
      "${OBJECTS[@]}" --object_path "$TUNED_ON/objects" --trajectory "$rule"
  done
  echo "== things of one shape, --trajectory track (A) and class (B): question_answering"
  "$PY" utils/compare_runs.py "$OUT/same_shape_track/metrics.json" "$OUT/same_shape_class/metrics.json"
fi
"$PY" utils/summarise_quickstart.py "$OUT"

draw() { # what the pre-trained model sees in the first held-out clips, beside their captions
  local clips="$OUT/demo/msrvtt" id files=()
  for id in $(sed -n 2,4p "$clips/test.csv" | cut -d, -f3); do files+=("$clips/videos/$id.mp4"); done
  "$PY" utils/visualize.py "${files[@]}" --checkpoint "$OUT/pretrain/restore.bin" --object_path "$clips/objects" \
    --texts "$clips/test.csv" --output "$OUT/pictures"
}
stage pictures draw
stage report "$PY" utils/make_report.py "$OUT" --frames "$FRAMES" --feature_framerate "$RATE"

echo "== a model to hand on: the captions' one, with what it is, as one folder (utils/README.md, export_model)"
printf '%q ' "$PY" "$ROOT/utils/export_model.py" "$OUT/captioning" "$OUT/exported/captioning"
echo
