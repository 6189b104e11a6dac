#!/usr/bin/env bash
# Download the answer of a job, its receipt and the reader, and count again what the receipt claims.
#   examples/verify.sh job_… FOLDER [photos.zip]
# PYTHON (default python3) needs torch, and Pillow where photos are given. Fails when anything is not as claimed.
source "$(dirname "$0")/common.sh"
[ $# -eq 2 ] || [ $# -eq 3 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
job=$1 folder=$2
mkdir -p "$folder"
artifact=$(request GET "/v1/jobs/$job/artifacts" | python3 -c '
import json, sys
finals = [item["id"] for item in json.load(sys.stdin)["items"] if item["kind"] == "final"]
sys.exit("The job has no answer.") if not finals else print(finals[-1])')
# The service looks at its own copy first: a download of damaged bytes is not worth its time.
request POST "/v1/artifacts/$artifact/verify" | field ok
"${CURL[@]}" --fail --output "$folder/student.pt" "$URL/v1/artifacts/$artifact/content"
"${CURL[@]}" --fail --output "$folder/receipt.json" "$URL/v1/artifacts/$artifact/receipt"
"${CURL[@]}" --fail --output "$folder/load_artifact.py" "$URL/v1/tools/load_artifact.py"
"${PYTHON:-python3}" "$folder/load_artifact.py" "$folder/student.pt" verify "$folder/receipt.json" ${3:+--photos "$3"}
