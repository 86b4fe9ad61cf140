#!/bin/sh
# Says which parts the tests lack. What can be had with apt-get is installed.
PATH=$PATH:/usr/sbin:/sbin
have() { command -v "$1" >/dev/null 2>&1; }

[ "$(id -u)" = 0 ] || { echo "test/scripts need root: they mount a small disk and run the agent as another user"; exit 1; }
get() { # PROGRAM PACKAGE
	if ! have "$1" && have apt-get; then
		apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 ||
			{ apt-get update >/dev/null 2>&1 && apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1; } || true
	fi
}
get logrotate logrotate
get systemd-analyze systemd
get rsyslogd rsyslog
get python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || { get no-such-program python3-venv; get no-such-program "python3$(python3 -c 'import sys; print(f".{sys.version_info.minor}")')-venv"; }
[ -n "$ELASTICSEARCH_URL" ] && [ -n "$OPENSEARCH_URL" ] || { get javac default-jdk-headless; get mvn maven; }
missing=
have logrotate || missing="$missing logrotate"
have systemd-analyze || missing="$missing systemd-analyze(systemd)"
have rsyslogd || missing="$missing rsyslogd(rsyslog)"
[ -n "$ELASTICSEARCH_URL" ] && [ -n "$OPENSEARCH_URL" ] || {
	have javac || missing="$missing a-JDK-17(default-jdk-headless)"
	have mvn || missing="$missing maven"
}
have setpriv || missing="$missing setpriv(util-linux)"
have unshare || missing="$missing unshare(util-linux)"
have python3 || missing="$missing python3"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -z "$missing" ] || { echo "test/scripts need$missing: install them"; exit 1; }
