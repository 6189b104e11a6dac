#!/usr/bin/env bash
# Upload a teacher and photos, run a job, poll it, download the result.
#   examples/submit_and_poll.sh teacher.pt teacher.json photos.zip job-steps.json student.pt
# teacher.json: {"architecture": …, "preprocessing": …, "class_names": …}; job-steps.json: the job's "steps" (and more fields if you like).
source "$(dirname "$0")/common.sh"
[ $# -eq 5 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
teacher_file=$1 teacher_card=$2 photos=$3 steps=$4 out=$5

request PUT "/v1/files/teacher.pt" --upload-file "$teacher_file" >/dev/null
request PUT "/v1/files/photos.zip" --upload-file "$photos" >/dev/null

dataset=$(request POST /v1/datasets --json '{"file": "photos.zip"}' | field id)
teacher=$(python3 -c 'import json, sys; print(json.dumps({"file": "teacher.pt", **json.load(open(sys.argv[1]))}))' "$teacher_card" |
    request POST /v1/teachers --json @- | field id)
echo "teacher $teacher, data set $dataset"

# The same key sent twice gives the same job: a script that is started again after a broken connection does no harm.
key=${IDEMPOTENCY_KEY:-$(python3 -c 'import uuid; print(uuid.uuid4())')}
job=$(python3 -c 'import json, sys; print(json.dumps({"teachers": [sys.argv[1]], "dataset": sys.argv[2], **json.load(open(sys.argv[3]))}))' \
    "$teacher" "$dataset" "$steps" |
    request POST /v1/jobs --header "Idempotency-Key: $key" --json @- | field id)
echo "job $job"

while :; do
    # wait=20 answers as soon as something changed, so this loop neither hammers nor lags.
    view=$(request GET "/v1/jobs/$job?wait=20")
    state=$(field state <<<"$view")
    echo "$state $(field phase <<<"$view") $(field progress.fraction <<<"$view")"
    case $state in succeeded) break ;; failed | cancelled) field error <<<"$view" >&2; exit 1 ;; esac
done

"${CURL[@]}" --fail --location --output "$out" "$URL/v1/jobs/$job/download"
"${CURL[@]}" --fail --output "$(dirname "$out")/load_artifact.py" "$URL/v1/tools/load_artifact.py"
field result.stages.-1 <<<"$view"
echo "$out $(wc -c <"$out") bytes"
