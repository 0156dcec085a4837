#!/usr/bin/env bash
# Starts Apache Kafka beside a Tidelog that is fresh, sends both the same requests, and compares the answers field by field:
# judge.sh HOST:PORT [PART...]. HOST:PORT is Tidelog's Kafka listener. All differences are written to $JUDGE_OUT (default
# target/foreign/java/differences.jsonl), one a line; those that allowed.json does not name are printed, and then the exit
# status is 1. JUDGE_PRUNE=1 takes out of allowed.json what differs no more. JUDGE_TIMES=1 says what was waited for. Kafka listens on 127.0.0.1 and keeps its data in a folder that is taken away at the end.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
tidelog=$1
shift
compiled kafka "$here/src"
dir=$(mktemp -d)
started=()
finish() {
    for one in "${started[@]}"; do
        kill "$one" 2>/dev/null || true
        wait "$one" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 143' TERM INT
read -r port controller < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[s.getsockname()[1] for s in sockets])')
node=$("${java[@]}" -cp "$classes:$(jars kafka)" Judge node "$tidelog")
sed -e "s|@NODE@|$node|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER@|$controller|g" -e "s|@DIR@|$dir/data|g" "$here/server.properties" >"$dir/server.properties"
"${java[@]}" -cp "$(jars kafka)" kafka.tools.StorageTool format --cluster-id judgejudgejudgejudge00 \
    --config "$dir/server.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; exit 2; }
"${java[@]}" -cp "$(jars kafka)" kafka.Kafka "$dir/server.properties" >"$dir/kafka.log" 2>&1 &
kafka=$!
started+=("$kafka")
for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        break
    fi
    kill -0 "$kafka" 2>/dev/null || { cat "$dir/kafka.log" >&2; exit 2; }
    sleep 0.2
done
status=0
"${java[@]}" -cp "$classes:$(jars kafka)" Judge "127.0.0.1:$port" "$tidelog" "$here/allowed.json" \
    "${JUDGE_OUT:-$installed/differences.jsonl}" "$@" &
started+=("$!")
wait "$!" || status=$?
if [ -n "${KAFKA_LOG:-}" ]; then
    cat "$dir/kafka.log" >&2
fi
exit "$status"
