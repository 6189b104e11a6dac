# Sourced by the scripts here. They need curl and python3 (to read JSON), nothing else.
# FEWBYTES_KEY: an access key, where the service asks for one.
set -euo pipefail
URL=${URL:-http://127.0.0.1:8000}
CURL=(curl --silent --show-error)
[ -z "${FEWBYTES_KEY:-}" ] || CURL+=(--header "Authorization: Bearer $FEWBYTES_KEY")

# field NAME: that field of the JSON on standard input; dots go deeper ("error.detail").
field() {
    python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."):
    value = value[int(key)] if isinstance(value, list) else (value or {}).get(key)
print(json.dumps(value) if isinstance(value, (dict, list)) else "" if value is None else value)' "$1"
}

# request METHOD PATH [curl options]: prints the body; on an error prints the problem to standard error and fails.
request() {
    local method=$1 path=$2 body status
    shift 2
    body=$("${CURL[@]}" --request "$method" --write-out '\n%{http_code}' "$@" "$URL$path")
    status=${body##*$'\n'}
    body=${body%$'\n'*}
    if [ "$status" -ge 400 ]; then
        printf '%s %s: %s\n' "$method" "$path" "$body" >&2
        return 1
    fi
    printf '%s\n' "$body"
}
