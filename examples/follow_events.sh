#!/usr/bin/env bash
# Print a job's events as they happen (Server-Sent Events); ends with the job.
#   examples/follow_events.sh job_… [last-event-id]
# A broken connection loses nothing: give the last id seen and the stream goes on after it.
source "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
exec "${CURL[@]}" --fail --no-buffer \
    --header 'Accept: text/event-stream' ${2:+--header "Last-Event-ID: $2"} "$URL/v1/jobs/$1/events"
