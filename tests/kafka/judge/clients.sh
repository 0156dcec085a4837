#!/usr/bin/env bash
# Kafka's Java client against a fresh Tidelog: clients.sh kafka|clients39 HOST:PORT. The last line is "ok" where all is well.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
compiled "$1" "$here/clients"
exec "${java[@]}" -cp "$classes:$(jars "$1")" Clients "$2"
