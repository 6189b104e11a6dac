#!/usr/bin/env bash
# Upload a large file so that a broken connection costs only the part not yet sent.
#   examples/resume_upload.sh FILE [NAME]
# Run it again after a break: it asks how much arrived and sends the rest. The upload's address is kept in FILE.upload.
source "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
file=$1 name=${2:-$(basename "$1")}
size=$(wc -c <"$file" | tr -d ' ')
digest=$(python3 -c '
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    print(hashlib.file_digest(file, "sha256").hexdigest())' "$file")

if [ -f "$file.upload" ]; then
    upload=$(cat "$file.upload")
else
    upload=$(request POST /v1/uploads --json "{\"name\": \"$name\", \"size_bytes\": $size, \"sha256\": \"$digest\"}" | field id)
    echo "$upload" >"$file.upload"
fi
# curl's own `-C -` starts an upload at 0, so ask first.
offset=$("${CURL[@]}" --fail --head "$URL/v1/uploads/$upload" | tr -d '\r' | awk 'tolower($1) == "upload-offset:" {print $2}')
echo "$upload: $offset of $size bytes are there"
# RATE (e.g. 200k) slows curl down, to try a break.
request PUT "/v1/uploads/$upload" --continue-at "$offset" --upload-file "$file" ${RATE:+--limit-rate "$RATE"}
rm -f "$file.upload"
