#!/usr/bin/env bash
# Download an artifact; after a break, go on where it stopped, and check the whole against its digest.
#   examples/resume_download.sh art_… OUT
source "$(dirname "$0")/common.sh"
[ $# -eq 2 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
artifact=$1 out=$2
digest=$(request GET "/v1/artifacts/$artifact" | field sha256)
size=$(request GET "/v1/artifacts/$artifact" | field size_bytes)
have=0
[ ! -f "$out" ] || have=$(wc -c <"$out")
if [ "$have" -lt "$size" ]; then
    # -C - asks for the rest by Range. The digest below tells should the file on disk be another one.
    "${CURL[@]}" --fail --location --continue-at - --output "$out" ${RATE:+--limit-rate "$RATE"} \
        "$URL/v1/artifacts/$artifact/content"
fi
python3 -c '
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
sys.exit(0 if found == sys.argv[2] else f"digest differs: {found}")' "$out" "$digest"
echo "$out sha256 $digest"
