#!/usr/bin/env bash
# What each part adds: bash scripts/ablation.sh [flags of every stage...]; on demo clips: DEMO=1 bash scripts/ablation.sh
#
# Pre-trains, fine-tunes and scores each of these rows with each seed, all with the same settings beside what is said:
#   base              no objects, no actions
#   trajectories      + trajectories (object_noun has weight 0)
#   nouns             + object-noun loss
#   actions           + actions (action_verb has weight 0)
#   all               + action-verb loss
#   no_frame_dropout  all, with --frame_dropout 0 in every stage
#   other_trajectory  all, with the other rule of --trajectory
# Variables are those of scripts/pretrain_webvid.sh and of the data set's own scripts (scripts/fine_tune.sh), and:
#   DATASET      whose scripts run: scripts/{qa,caption,retrieval,mc}_$DATASET.sh  (default: msrvtt)
#   TASKS        of question_answering captioning retrieval multiple_choice        (default: question_answering captioning)
#   SEEDS, ROWS  which to run                                                      (default: 0 1, all rows)
#   CHAIN        1: each task starts at the model of the one before, its head at   (default: all at the pre-trained one)
#                the pre-trained one's
#   PRETRAINING_FLAGS, QUESTION_ANSWERING_FLAGS, ...   flags of one stage; weights of losses are PRETRAINING_FLAGS'
#   TRUTH        truth.json of demo clips, for the share of captions that are true (default: none)
#   OUTPUT_DIR   folder of runs/{row}-seed{S} and rows/{row}-seed{S}.json          (default: output/ablation)
#   DEMO         1: the demo world, 2,000 clips and half the quickstart's epochs, some hours on 2 cores; tiny: a handful
# Called again it goes on where it was: finished rows are kept, an interrupted stage is resumed, and a stage that was run
# with other settings is refused. A row that fails does not stop the others. Rows that were finished elsewhere are kept
# when their files are put into rows/. The table of what is there: utils/ablation_table.py.
set -euo pipefail
VARIABLES="DATA_PATH SHARDS CLIP_ARCHIVE LABEL_MAP OBJECT_PATH VIDEOS CAPTIONS ANNOTATIONS QUESTIONS TRAIN_CSV VAL_CSV TEST_CSV NPROC"
ALL_TASKS="question_answering captioning retrieval multiple_choice"
ALL_ROWS="base trajectories nouns actions all no_frame_dropout other_trajectory"
DEMO_FLAGS=() PRETRAINING=() ANSWERING=() CAPTIONING=() RETRIEVAL=() CHOOSING=()

refuse() {
  echo "ablation.sh: $1" >&2
  exit 2
}

case "${DEMO:=}" in
  "") ;;
  1) CLIPS=2000 HELD_OUT=500 EPOCHS=(2 3 3 1 1) SHOW=20 ;; # of pre-training, then of the tasks
  tiny) CLIPS=128 HELD_OUT=8 EPOCHS=(1 1 1 1 1) SHOW=2 SEEDS="${SEEDS:-0}" ;;
  *) refuse "DEMO=$DEMO: give 1 or tiny" ;;
esac
SEEDS="${SEEDS:-0 1}" ROWS="${ROWS:-$ALL_ROWS}" TASKS="${TASKS:-question_answering captioning}" DATASET="${DATASET:-msrvtt}"
START="${MODEL_PATH:-}" OUT=""

# -- the demo world

render_demo() {
  "$PY" "$ROOT/utils/make_demo_data.py" --output_dir "$OUT/demo" --train_clips "$CLIPS" --val_clips "$((HELD_OUT / 4))" \
    --test_clips "$HELD_OUT" --msvd_clips 0 --lsmdc_clips 0 --didemo_clips 0 \
    --feature_framerate "$RATE" --max_frames "$FRAMES" --workers 2
  [ -f "$OUT/clip.pt" ] || "$PY" "$ROOT/utils/make_random_clip.py" --preset demo --output "$OUT/clip.pt"
  "$PY" "$ROOT/utils/webvid_to_tfrecord.py" --csv "$OUT/demo/webvid/results_demo_train.csv" \
    --video_dir "$OUT/demo/webvid/videos" --output_dir "$OUT/shards" --size 64 --feature_framerate "$RATE" --workers 2
}

if [ -n "$DEMO" ]; then
  source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
  OUT="${OUTPUT_DIR:-$ROOT/output/ablation-$([ "$DEMO" = 1 ] && echo demo || echo "$DEMO")}"
  source "$ROOT/scripts/demo.sh"
  CLIPS_OF="$OUT/demo/msrvtt"
  export PYTHON="$PY" OMP_NUM_THREADS="$THREADS" NPROC="$PROCESSES" CLIP_ARCHIVE="$OUT/clip.pt" LABEL_MAP="$OUT/demo/label_map.json"
  export SHARDS="$OUT/shards" OBJECT_PATH="$CLIPS_OF/objects" VIDEOS="$CLIPS_OF/videos" QUESTIONS="$CLIPS_OF/qa"
  export CAPTIONS="$CLIPS_OF/MSRVTT_data.json"
  TRUTH="$CLIPS_OF/truth.json" CHAIN="${CHAIN:-1}"
  DEMO_FLAGS=("${COMMON[@]}" "${RATES[@]}" "${OBJECTS[@]}" --object_layer None --no-expand_msrvtt_sentences)
  # Nothing is chosen by pre-training's validation.
  PRETRAINING+=(--epochs "${EPOCHS[0]}" --object_path "$OUT/demo/webvid/objects" --val_features_path "")
  ANSWERING+=(--epochs "${EPOCHS[1]}")
  CAPTIONING+=(--epochs "${EPOCHS[2]}")
  RETRIEVAL+=(--epochs "${EPOCHS[3]}" --train_csv "$CLIPS_OF/train.csv" --val_csv "$CLIPS_OF/val.csv" --test_csv "$CLIPS_OF/test.csv")
  CHOOSING=(--epochs "${EPOCHS[4]}" --train_csv "$CLIPS_OF/train.csv" --val_csv "$CLIPS_OF/mc_val.jsonl"
    --test_csv "$CLIPS_OF/mc_test.jsonl")
fi
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
OUT="${OUT:-${OUTPUT_DIR:-$ROOT/output/ablation}}"
CHAIN="${CHAIN:-}" TRUTH="${TRUTH:-}"

# -- settings

split() { # name of a variable: its words, quoted as in a shell, in WORDS
  local text
  text="$(xargs printf '%s\n' <<< "${!1:-}")" || refuse "$1: its quotes do not match"
  WORDS=()
  [ -z "$text" ] || mapfile -t WORDS <<< "$text"
}

check_flags() { # where they stand, flags...: what makes a row, and where it lies, is set here
  local where="$1" flag
  shift
  for flag in "$@"; do
    case "${flag%%=*}" in
      --need_object | --no-need_object | --use_action | --no-use_action | --action_only | --seed | --output_dir | \
        --init_model | --init_heads | --do_train | --no-do_train | --do_eval | --config)
        refuse "$where: ${flag%%=*} differs between rows, seeds or stages and is set by this script; leave it out" ;;
      --loss_weights)
        [ "$where" = PRETRAINING_FLAGS ] || refuse "$where: --loss_weights belong into PRETRAINING_FLAGS" ;;
      --trajectory)
        [ "$where" = arguments ] || refuse "$where: --trajectory is one for all stages; give it as an argument" ;;
    esac
  done
}

check_flags arguments "$@"
for name in PRETRAINING QUESTION_ANSWERING CAPTIONING RETRIEVAL MULTIPLE_CHOICE; do
  split "${name}_FLAGS"
  check_flags "${name}_FLAGS" "${WORDS[@]}"
done

script_of() { # task: how its scripts' names begin, nothing for no task
  case "$1" in
    question_answering) echo qa ;;
    captioning) echo caption ;;
    retrieval) echo retrieval ;;
    multiple_choice) echo mc ;;
  esac
}

WITH_LISTS=()
for task in $TASKS; do
  script="$(script_of "$task")"
  [ -n "$script" ] || refuse "TASKS: there is no $task; there are $ALL_TASKS"
  script="${script}_$DATASET"
  [ -f "$ROOT/scripts/$script.sh" ] || refuse "TASKS: $task has no script for $DATASET (scripts/$script.sh)"
  [ "$task" = question_answering ] || WITH_LISTS+=("$task")
done
[ "${#WITH_LISTS[@]}" -lt 2 ] || [ -z "${TRAIN_CSV:-}${VAL_CSV:-}${TEST_CSV:-}" ] ||
  refuse "TRAIN_CSV, VAL_CSV and TEST_CSV are other lists in ${WITH_LISTS[*]}; give --train_csv, ... in RETRIEVAL_FLAGS and the like"
for row in $ROWS; do
  [[ " $ALL_ROWS " == *" $row "* ]] || refuse "ROWS: there is no $row; there are $ALL_ROWS"
done
for seed in $SEEDS; do
  [[ "$seed" =~ ^(0|[1-9][0-9]*)$ ]] || refuse "SEEDS: $seed is no number from 0"
done

value_of() { # flag, flags...: its last value, empty if it is not there
  local flag="$1" found="" previous="" word
  shift
  for word in "$@"; do
    [ "$previous" != "$flag" ] || found="$word"
    case "$word" in "$flag="*) found="${word#*=}" ;; esac
    previous="$word"
  done
  echo "$found"
}

stage_flags() { # stage, flags of all stages...: in FLAGS all but the row's own, later ones win
  local stage="$1"
  shift
  split "$(tr '[:lower:]' '[:upper:]' <<< "$stage")_FLAGS"
  FLAGS=(--keep_checkpoints 1)
  # The released script has no objects in multiple choice, so it names no folder of them.
  [ "$stage" != multiple_choice ] || FLAGS+=(--object_path "${OBJECT_PATH:-${DATA_PATH:-$ROOT/data}/object_feature/msr_vtt}")
  FLAGS+=("${DEMO_FLAGS[@]}")
  case "$stage" in
    pretraining) FLAGS+=("${PRETRAINING[@]}") ;;
    question_answering) FLAGS+=("${ANSWERING[@]}") ;;
    captioning) FLAGS+=("${CAPTIONING[@]}") ;;
    retrieval) FLAGS+=("${RETRIEVAL[@]}") ;;
    multiple_choice) FLAGS+=("${CHOOSING[@]}") ;;
  esac
  FLAGS+=("$@" "${WORDS[@]}")
}

row_flags() { # row: in OWN its flags of all stages; in ABSENT and SILENT losses whose tokens it has not, and has with weight 0
  OWN=(--need_object --use_action) ABSENT="" SILENT=""
  case "$1" in
    base) OWN=(--no-need_object --no-use_action) ABSENT="object_noun action_verb" ;;
    trajectories) OWN=(--need_object --no-use_action) ABSENT=action_verb SILENT=object_noun ;;
    nouns) OWN=(--need_object --no-use_action) ABSENT=action_verb ;;
    actions) SILENT=action_verb ;;
    no_frame_dropout) OWN+=(--frame_dropout 0) ;;
    other_trajectory) OWN+=(--trajectory "$OTHER_RULE") ;;
  esac
}

weights() { # weights of losses, for all rows: those of this row
  local part found=""
  for part in ${1//,/ }; do
    [[ " $ABSENT $SILENT " == *" ${part%%=*} "* ]] || found+=",$part"
  done
  for part in $SILENT; do found+=",$part=0"; done
  echo "${found#,}"
}

RULE="$(value_of --trajectory "${DEMO_FLAGS[@]}" "$@")"
OTHER_RULE="$([ "${RULE:-class}" = class ] && echo track || echo class)"
HAS_DROPOUT=""
for stage in pretraining $TASKS; do
  stage_flags "$stage" "$@"
  [[ "$(value_of --frame_dropout "${FLAGS[@]}")" =~ ^[0.]*$ ]] || HAS_DROPOUT=1
done

# -- runs

described() { # script, checkpoint, flags...: all that a stage is run with, wherever the output folder lies
  local text name
  text="$(printf '%s\n' "$@" && for name in $VARIABLES; do echo "$name=${!name:-}"; done)"
  echo "${text//"$OUT"/OUTPUT_DIR}"
}

is_finished() { # folder of a run: a signal ends it in order, and it is to be resumed
  case "$1" in
    */pretraining) [ -f "$1/restore.bin" ] && ! tail -n 1 "$1/log.txt" | grep -q "stopped by a signal" ;;
    *) [ -f "$1/metrics.json" ] ;;
  esac
}

run_stage() { # run's folder, stage, script, checkpoint to start from, flags...
  local folder="$1/$2" what="${1##*/}: $2" script="$3" start="$4" now began
  shift 4
  now="$(described "$script" "$start" "$@")"
  # What failed before anything was learned may be called again with other settings.
  if [ -e "$folder.done" ] || [ -e "$folder/restore.bin" ]; then
    if ! diff <(cat "$folder.settings") <(echo "$now") > /dev/null; then
      echo "$what was run with other settings (<) than these (>):" >&2
      diff <(cat "$folder.settings") <(echo "$now") | grep '^[<>]' >&2
      echo "Give the old ones, move ${folder%/*} and its file in rows/ away, or name another OUTPUT_DIR" >&2
      return 1
    fi
  fi
  if [ -e "$folder.done" ]; then
    echo "== $what: kept"
    return 0
  fi
  mkdir -p "$folder" && echo "$now" > "$folder.settings" || return 1
  echo "== $what"
  began=$(date +%s)
  MODEL_PATH="$start" OUTPUT_DIR="$folder" bash "$ROOT/scripts/$script.sh" "$@" || return 1
  is_finished "$folder" || {
    echo "$what was stopped; call this script again to go on" >&2
    return 1
  }
  echo "$(($(date +%s) - began)) s" > "$folder.done"
  echo "== $what: $(cat "$folder.done")"
  RAN=1
}

run_row() { # row, seed, flags of all stages...
  local row="$1" seed="$2" name="$1-seed$2" run="$OUT/runs/$1-seed$2" start="$START" task script loss_weights
  shift 2
  if [ -f "$OUT/rows/$name.json" ] && [ ! -d "$run" ]; then
    echo "== $name: kept, its runs are elsewhere"
    return 0
  fi
  row_flags "$row"
  RAN="" HEADS=()
  stage_flags pretraining "$@"
  loss_weights="$(weights "$(value_of --loss_weights "${FLAGS[@]}")")"
  run_stage "$run" pretraining pretrain_webvid "$start" "${FLAGS[@]}" "${OWN[@]}" --loss_weights "$loss_weights" \
    --seed "$seed" || return 1
  start="$run/pretraining/restore.bin"
  for task in $TASKS; do
    script="$(script_of "$task")"
    stage_flags "$task" "$@"
    run_stage "$run" "$task" "${script}_$DATASET" "$start" "${FLAGS[@]}" "${OWN[@]}" "${HEADS[@]}" --seed "$seed" || return 1
    if [ -n "$CHAIN" ]; then
      start="$run/$task/best.bin"
      HEADS=(--init_heads "$run/pretraining/restore.bin")
    fi
  done
  [ -z "$RAN" ] && [ -f "$OUT/rows/$name.json" ] || "$PYTHON" "$ROOT/utils/ablation_row.py" "$run" --row "$row" \
    --seed "$seed" ${TRUTH:+--truth "$TRUTH"} --output "$OUT/rows/$name.json"
}

[ -z "$DEMO" ] || render_demo
trap 'echo "interrupted; call this script again to go on" >&2; exit 130' INT TERM
FAILED=()
for seed in $SEEDS; do
  for row in $ROWS; do
    if [ "$row" = no_frame_dropout ] && [ -z "$HAS_DROPOUT" ]; then
      echo "== $row is left out: it is all, since no stage has --frame_dropout (PRETRAINING_FLAGS='--frame_dropout 0.5')"
      continue
    fi
    run_row "$row" "$seed" "$@" || {
      echo "== $row-seed$seed has failed" >&2
      FAILED+=("$row-seed$seed")
    }
  done
done
"$PYTHON" "$ROOT/utils/ablation_table.py" "$OUT" || FAILED+=("the table")
[ "${#FAILED[@]}" = 0 ] || {
  echo "ablation.sh: failed: ${FAILED[*]}; what is finished is kept, call this script again for the rest" >&2
  exit 1
}
