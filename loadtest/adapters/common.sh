# Sourced by every adapter's `run`: what they share. Needs bash.
set -euo pipefail

# Runs a command in the background on core $CORE, its output in $STATE/log, its process id in $STATE/pids.
launch() {
    local pin=()
    [ -n "${CORE:-}" ] && pin=(taskset -c "$CORE")
    raise_file_limit
    nohup "${pin[@]}" "$@" >>"$STATE/log" 2>&1 </dev/null &
    echo $! >>"$STATE/pids"
}

# 200,000 files where that is allowed, otherwise as many as the hard limit says.
raise_file_limit() {
    ulimit -n 200000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
}

# Waits until something listens on $PORT, at most $1 seconds.
await_port() {
    local tries=$(($1 * 10))
    until (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ]; then
            echo "$0: nothing listens on port $PORT after $1 s; the end of $STATE/log:" >&2
            tail -n 20 "$STATE/log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# Asks for a small answer at URL $1 with key $2 (further arguments go to curl) until three came, at most 60 times.
warm_up() {
    local url=$1 key=$2 came=0
    shift 2
    for _ in $(seq 60); do
        if curl -sf -m 20 -o "$STATE/warm-up" -H "authorization: Bearer $key" -H "content-type: application/json" \
            "$@" -d '{"model":"mock","messages":[{"role":"user","content":"hello"}]}' "$url"; then
            came=$((came + 1))
            [ "$came" = 3 ] && return 0
        else
            sleep 0.5
        fi
    done
    echo "$0: no answer to a small call at $url" >&2
    exit 1
}

# Prints a pid line for each started process and its descendants.
print_pids() {
    local queue next
    queue=$(cat "$STATE/pids")
    while [ -n "$queue" ]; do
        next=""
        for pid in $queue; do
            echo "pid $pid"
            next="$next $(pgrep -P "$pid" || true)"
        done
        queue=$(echo "$next" | xargs)
    done
}

# Ends what was started, by process id, and waits for it.
stop_pids() {
    [ -f "$STATE/pids" ] || return 0
    local pids
    pids=$(print_pids | sed 's/^pid //')
    kill $pids 2>/dev/null || true
    for _ in $(seq 50); do
        kill -0 $pids 2>/dev/null || break
        sleep 0.1
    done
    kill -9 $pids 2>/dev/null || true
    rm -f "$STATE/pids"
}

scheme() {
    [ "${TLS:-0}" = 1 ] && echo https || echo http
}

# What a TLS listener agrees to.
alpn() {
    [ "${HTTP:-1.1}" = 2 ] && echo h2 || echo http/1.1
}

# Ends the script where its caller asks for what this gateway has no variant of: `lacks TLS`, `lacks HTTP/2`.
lacks() {
    case $1 in
    TLS) [ "${TLS:-0}" = 1 ] || return 0 ;;
    HTTP/2) [ "${HTTP:-1.1}" = 2 ] || return 0 ;;
    esac
    echo "$0: no variant with $1" >&2
    exit 1
}

# Starts nginx with the nginx.conf of folder $1 and prints its url.
start_nginx() {
    local listen="" server="" proxy=""
    if [ "${TLS:-0}" = 1 ]; then
        listen=" ssl"
        server="ssl_certificate $STATE/cert.pem; ssl_certificate_key $STATE/key.pem; ssl_protocols TLSv1.3;"
        proxy="proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on; proxy_ssl_verify off;"
    fi
    [ "${HTTP:-1.1}" = 2 ] && listen="$listen http2"
    sed -e "s|@STATE@|$STATE|g" -e "s|@PORT@|$PORT|g" -e "s|@UPSTREAM@|$UPSTREAM|g" -e "s|@SCHEME@|$(scheme)|g" \
        -e "s|@HERE@|$1|g" -e "s|@MODULES@|/usr/lib/nginx/modules|g" \
        -e "s|@LISTEN_OPTIONS@|$listen|g" -e "s|@TLS_SERVER@|$server|g" -e "s|@TLS_PROXY@|$proxy|g" \
        "$1/nginx.conf" >"$STATE/nginx.conf"
    launch nginx -p "$STATE" -e "$STATE/error.log" -c "$STATE/nginx.conf"
    await_port 10
    echo "url $(scheme)://127.0.0.1:$PORT"
}

# Installs Debian packages that are missing.
apt_install() {
    dpkg -s "$@" >/dev/null 2>&1 || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}
