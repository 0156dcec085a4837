#!/usr/bin/env bash
# The commands that come with Kafka against a fresh Tidelog: tools.sh HOST:PORT. The last line is "ok" where all is well.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
compiled kafka "$here/tools"
exec "${java[@]}" -cp "$classes:$(jars kafka)" Tools "$1"
