#!/usr/bin/env bash
# The foreign clients that tests/kafka/foreign.rs runs, in pinned versions, under target/foreign; and kcat from the system's
# packages. Does nothing where they are installed already.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/foreign
if [ ! -x target/foreign/py/bin/python ]; then
    python3 -m venv target/foreign/py
fi
target/foreign/py/bin/python -m pip install --quiet --disable-pip-version-check \
    confluent-kafka==2.16.1 kafka-python==3.0.12 aiokafka==0.14.0 cramjam==2.14.0 python-snappy==0.7.3 lz4==4.4.5 zstandard==0.25.0
js="kafkajs@2.2.4 kafkajs-snappy@1.1.0 lz4js@0.2.0 @bokuweb/zstd-wasm@0.0.27"
# What was installed is noted when it is whole, so that another list is installed again.
if [ "$(cat target/foreign/js/installed 2>/dev/null)" != "$js" ]; then
    # shellcheck disable=SC2086 # a list of words
    npm install --silent --no-audit --no-fund --prefix target/foreign/js $js
    echo "$js" >target/foreign/js/installed
fi
if ! command -v kcat >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq kcat
fi
tests/kafka/judge/install.sh
