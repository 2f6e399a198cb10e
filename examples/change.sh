#!/bin/sh
# Pushes a description to one interface of one device and says what took effect.
#
#   export NETPULSE_URL=http://127.0.0.1:9000 NETPULSE_API_KEY=change-me-please
#   export DEVICE_HOST=192.0.2.11 DEVICE_USER=ops DEVICE_PASSWORD=... DEVICE_SECRET=...
#   ./examples/change.sh Loopback42 "from NetPulse"
#
# Needs curl and jq. Ends with 0 only when every line was applied.
set -eu

interface=$1
description=$2
: "${NETPULSE_URL:=http://127.0.0.1:9000}" "${DEVICE_TYPE:=cisco_ios}" "${DEVICE_PORT:=22}"

# jq writes the JSON, so that quotes in a description break nothing. The secrets go through the
# environment and standard input: neither shows in the list of processes.
export interface description DEVICE_TYPE DEVICE_PORT
answer=$(
    jq -n '{
        driver: "netmiko",
        save: true,
        connection_args: {
            device_type: env.DEVICE_TYPE, host: env.DEVICE_HOST, port: (env.DEVICE_PORT | tonumber),
            username: env.DEVICE_USER, password: env.DEVICE_PASSWORD, secret: (env.DEVICE_SECRET // "")
        },
        config: ["interface " + env.interface, "description " + env.description]
    }' |
    curl -sS --fail-with-body -X POST "$NETPULSE_URL/device/exec?wait=60" \
        -H "X-API-KEY: $NETPULSE_API_KEY" -H 'Content-Type: application/json' \
        -H "Idempotency-Key: ${CHANGE_ID:-$(cat /proc/sys/kernel/random/uuid)}" --data-binary @-
) || { printf '%s\n' "$answer" >&2; exit 2; }

printf '%s' "$answer" | jq -r '
    "job \(.id): \(.status), \(.result.outcome // "still running")",
    (.result.retval[]? | "  \(if .exit_status == 0 then "ok " else "BAD" end) \(.command)  \(.stderr)"),
    (.result.error | select(.) | "  \(.type): \(.message)")'
printf '%s' "$answer" | jq -e '.status == "finished" and .result.outcome == "applied"' > /dev/null
