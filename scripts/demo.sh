# Sourced by quickstart.sh and ablation.sh: the recipe of the small models of demo clips, for both the same. They set
#   PY, OUT (folder of demo/ and clip.pt), SHOW (updates between two lines of the log)
# before; NPROC counts processes.
# So small a model gains nothing from more than two threads, and two processes of one thread lose a tenth of their time to
# what they exchange.
PROCESSES="${NPROC:-1}"
THREADS=1
if [ "$PROCESSES" = 1 ] && [ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ]; then THREADS=2; fi
FRAMES=4 RATE=2 # of 12 candidates in the 6 s of a clip
BATCH=16
OBJECTS=(--need_object --use_action --object_count 5 --num_actions 8 --labelmap_path "$OUT/demo/label_map.json")
COMMON=(--clip_archive "$OUT/clip.pt" --num_thread_reader 0 --batch_size $((BATCH / PROCESSES)) --batch_size_val 50 --n_display "$SHOW"
  --eval_every 100000 --feature_framerate "$RATE" --max_frames "$FRAMES" --max_words 32 --fusion_layers 3
  --weight_decay 0.2 --dropout 0.1 --freeze_layer_num -1)
# The towers and the object encoder learn more slowly than what reads them: at one rate for all, the noise of the first
# thousand steps wears away what random features tell of boxes before anything reads it.
RATES=(--lr 1e-3 --coef_lr 0.3 --object_lr 3e-4 --fusion_lr 5e-4)
# Only the loss of verbs teaches the action encoder, and hardly at the rates of the rest.
PRETRAINING=(--contrastive_weight 2 --frame_dropout 0.5 --action_lr 2e-3)
ANSWERING=(--frame_dropout 0.6)
CAPTIONING=(--every_epochs 5 --beam_size 5 --frame_dropout 0.6)
# Of clips drawn at random hardly two differ in one attribute only, which is what the similarity still has to learn; at the
# rate of the rest the towers would unlearn what captions have taught them.
RETRIEVAL=(--similar_batches 8192 --batch_size $((4 * BATCH / PROCESSES)) --coef_lr 0.2)
