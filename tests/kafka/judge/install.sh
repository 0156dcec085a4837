#!/usr/bin/env bash
# Apache Kafka's jars in pinned versions, under target/foreign/java: kafka (broker, tools and client, pom.xml) and clients39
# (clients39/pom.xml). Does nothing where they are installed already. Needs a JDK 17 and Maven; Debian's packages where there
# are none.
set -euo pipefail
cd "$(dirname "$0")/../../.."
if ! command -v javac >/dev/null || ! command -v mvn >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq openjdk-17-jdk-headless maven
fi
jars() {
    local pom=$1 into=target/foreign/java/$2 sum
    sum=$(sha256sum "$pom" | cut -d' ' -f1)
    # What was installed is noted when it is whole.
    if [ "$(cat "$into/installed" 2>/dev/null)" != "$sum" ]; then
        rm -rf "$into"
        mkdir -p "$into"
        MAVEN_OPTS="-Xmx512m -XX:TieredStopAtLevel=1" mvn --quiet --batch-mode --file "$pom" \
            org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            -DoutputDirectory="$PWD/$into" -DincludeScope=runtime
        echo "$sum" >"$into/installed"
    fi
}
jars tests/kafka/judge/pom.xml kafka
jars tests/kafka/judge/clients39/pom.xml clients39
