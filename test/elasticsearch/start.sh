#!/bin/bash
# start.sh elasticsearch|elasticsearch9|opensearch|opensearch3 PORT DATADIR [setting=value ...]
# Fetches the server through mvn on its first run (into $SEARCH_CACHE, by default ~/.cache/search-servers), starts it on
# 127.0.0.1:PORT with its data, log and pid in DATADIR, waits until it answers, prints its URL.
# $SEARCH_HEAP (512m), $SEARCH_WAIT seconds (120), $SEARCH_JAVA a JDK's folder. With $SEARCH_OWNER, a pid, the server is killed
# when that process is gone: tests leave none behind even if they are killed themselves.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kind=$1 port=$2; mkdir -p "$3"; data=$(cd "$3" && pwd); shift 3
case $kind in elasticsearch | opensearch) need=17 ;; elasticsearch9 | opensearch3) need=21 ;; *) echo "unknown server $kind" >&2; exit 2 ;; esac
case $kind in elastic*) main=EsServer ;; *) main=OsServer ;; esac

# The first JDK (it must have javac) that is new enough.
jdk=
for j in ${SEARCH_JAVA:-} ${JAVA_HOME:-} /usr/lib/jvm/*; do
  [ -x "$j/bin/javac" ] || continue
  v=$("$j/bin/javac" -version 2>&1 | sed 's/[^0-9]*\([0-9]*\).*/\1/')
  [ "$v" -ge $need ] && { jdk=$j; break; }
done
[ -n "$jdk" ] || { echo "$kind needs a JDK $need or newer" >&2; exit 1; }

home=${SEARCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/search-servers}/$kind-$(cat "$here/pom.xml" "$here"/src/*.java "$here"/src/*/*.java | sha256sum | cut -c1-12)-jdk$v
classpath() { printf '%s:' "$home"/lib/*.jar; }
jvm=(-Xms"${SEARCH_HEAP:-512m}" -Xmx"${SEARCH_HEAP:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
  -Xlog:disable -Xlog:all=error:stderr -Dlog4j.configurationFile="$here/log4j2.xml" -Dlog4j2.disableJmx=true
  -Des.distribution.type=tar -Dopensearch.distribution.type=tar -Dio.netty.noUnsafe=true -Dio.netty.noKeySetOptimization=true)
[ "$v" -ge 24 ] && jvm+=(--enable-native-access=ALL-UNNAMED)

build() {
  local w=$home.tmp; rm -rf "$w"; mkdir -p "$w"/lib "$w"/config "$w"/modules "$w"/plugins "$w"/classes
  for try in 1 2 3; do
    mvn -q -B -f "$here/pom.xml" -P"$kind" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$w/lib" >"$w/mvn.log" 2>&1 && break
    [ $try -lt 3 ] || { cat "$w/mvn.log" >&2; return 1; }
  done
  "$jdk/bin/javac" -nowarn -cp "$w/lib/*" -d "$w/classes" "$here/src/$main.java"
  if [ $main = EsServer ]; then # two modules, each its folder with a descriptor
    local ver; ver=$(basename "$w"/lib/elasticsearch-[0-9]*.jar .jar); ver=${ver#elasticsearch-}
    local shape=v8; [ "${ver%%.*}" -ge 9 ] && shape=v9
    mkdir -p "$w"/modules/transport-netty4 "$w"/modules/extras "$w"/extras
    mv "$w"/lib/netty-*.jar "$w"/lib/transport-netty4-*.jar "$w"/modules/transport-netty4/
    "$jdk/bin/javac" -nowarn -Xlint:-removal -cp "$w/lib/*" -d "$w/extras" "$here/src/$shape/Compat.java" "$here/src/ExtrasPlugin.java" 2>&1 | grep -v '^Note:' >&2 || true
    "$jdk/bin/jar" cf "$w/modules/extras/extras.jar" -C "$w/extras" .
    descriptor() { printf '%s\n' "name=$1" "description=$1" "version=$ver" "elasticsearch.version=$ver" "java.version=17" "classname=$2" >"$w/modules/$1/plugin-descriptor.properties"; }
    descriptor transport-netty4 org.elasticsearch.transport.netty4.Netty4Plugin
    descriptor extras ExtrasPlugin
  fi
  "$jdk/bin/jar" cf "$w/lib/server-main.jar" -C "$w/classes" .
  mv "$w" "$home"
}

run() { # DATADIR PORT JVM-OPTIONS -- SETTINGS: starts the server, leaves its pid in DATADIR/server.pid
  local d=$1 p=$2 o=(); shift 2; while [ "$1" != -- ]; do o+=("$1"); shift; done; shift
  mkdir -p "$d/tmp"
  (cd "$d" && exec setsid nohup "$jdk/bin/java" "${jvm[@]}" "${o[@]}" -Djava.io.tmpdir="$d/tmp" -cp "$(classpath)" $main "$home" \
    cluster.name=lab node.name=n1 network.host=127.0.0.1 http.port="$p" transport.port=0 discovery.type=single-node \
    path.data="$d/data" path.logs="$d/logs" cluster.info.update.interval=30m "$@" </dev/null >>"$d/server.log" 2>&1) &
  local pid=$!
  echo $pid >"$d/server.pid"
  if [ -n "${SEARCH_OWNER:-}" ]; then
    (while kill -0 "$SEARCH_OWNER" && kill -0 $pid; do sleep 1; done; kill -9 $pid) </dev/null >/dev/null 2>&1 9>&- &
  fi
}
wait_ready() { # DATADIR PORT
  for _ in $(seq $((${SEARCH_WAIT:-120} * 5))); do
    curl -fsS -o /dev/null "http://127.0.0.1:$2/_cluster/health?wait_for_status=yellow&timeout=1s" 2>/dev/null && return 0
    kill -0 "$(cat "$1/server.pid")" 2>/dev/null || { echo "the server ended:" >&2; tail -n 20 "$1/server.log" >&2; return 1; }
    sleep .2
  done
  echo "no answer on port $2 yet" >&2; return 1
}

mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"; flock 9
[ -d "$home" ] || build
if [ ! -e "$home/classes.jsa" ]; then # once: a short run that leaves a class archive, which halves later start times
  t=$(mktemp -d)
  run "$t" "$port" -XX:ArchiveClassesAtExit="$home/classes.jsa" -- 9>&-
  if wait_ready "$t" "$port"; then curl -sS -o /dev/null -H 'content-type: application/json' "http://127.0.0.1:$port/a/_doc?refresh" -d '{"a":"b"}' || true; fi
  pid=$(cat "$t/server.pid"); kill "$pid" 2>/dev/null || true
  for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || break; sleep .2; done
  [ -e "$home/classes.jsa" ] || : >"$home/classes.jsa" # none to be had: go without
  rm -rf "$t"
fi
flock -u 9; exec 9>&-

if [ -s "$data/server.pid" ] && kill -0 "$(cat "$data/server.pid")" 2>/dev/null; then echo "already running: pid $(cat "$data/server.pid")" >&2; exit 1; fi
archive=(); [ -s "$home/classes.jsa" ] && archive=(-XX:SharedArchiveFile="$home/classes.jsa")
run "$data" "$port" "${archive[@]}" -- "$@"
wait_ready "$data" "$port"
echo "http://127.0.0.1:$port"
