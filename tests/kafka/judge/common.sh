# What the scripts of this folder share; to be sourced. `jars NAME` is a class path, `compiled NAME FOLDER` compiles what has changed.
# The machine has two cores and much else to do.
java=(java -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel="${KAFKA_LOG:-off}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
installed=$root/target/foreign/java

jars() {
    [ -f "$installed/$1/installed" ] || { echo "not installed: run tests/kafka/install.sh" >&2; exit 2; }
    echo "$installed/$1/*"
}

# Compiles a folder's sources with the jars of a name, unless that is done; the folder of classes is in $classes.
compiled() {
    local sum
    classes=$installed/classes/$1-$(basename "$2")
    sum=$(cat "$2"/*.java "$installed/$1/installed" | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$classes/compiled" 2>/dev/null)" != "$sum" ]; then
        rm -rf "$classes"
        mkdir -p "$classes"
        javac -J-Xmx512m -J-XX:TieredStopAtLevel=1 -Xlint:-options,-removal,-deprecation -nowarn -proc:none -d "$classes" -cp "$(jars "$1")" "$2"/*.java
        echo "$sum" >"$classes/compiled"
    fi
}
