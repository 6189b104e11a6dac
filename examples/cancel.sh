#!/usr/bin/env bash
# Cancel a job and keep the best student so far, when there is one.
#   examples/cancel.sh job_… [OUT]
source "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
job=$1
request POST "/v1/jobs/$job/cancel" >/dev/null
until view=$(request GET "/v1/jobs/$job?wait=20") && state=$(field state <<<"$view") && [[ $state =~ ^(cancelled|succeeded|failed)$ ]]; do :; done
echo "$job $state"
artifact=$(request GET "/v1/jobs/$job/artifacts" | python3 -c '
import json, sys
found = [a["id"] for a in json.load(sys.stdin)["items"] if a["kind"] == "best_so_far"]
print(found[0] if found else "")')
if [ -n "$artifact" ] && [ $# -ge 2 ]; then
    "${CURL[@]}" --fail --location --output "$2" "$URL/v1/artifacts/$artifact/content"
    echo "best so far: $2"
elif [ -z "$artifact" ]; then
    echo "nothing was trained yet, so there is no student to keep"
fi
