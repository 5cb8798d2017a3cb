#!/usr/bin/env bash
# A real ClickHouse server on 127.0.0.1 for development and tests: run.sh DATA [HTTP_PORT] [TCP_PORT] [CONFIG.xml]. Needs python3, and npm once, which
# puts the engine into .clickhouse/: the shared library of an npm package, which is clickhouse-local and can listen like a server. DATA keeps what
# was written. Its users are those of users.xml; where no variable named there is set, one password for all of them is made and kept in DATA/password.
# CONFIG.xml goes into its config.d. Not for production: no replication.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
package=@chdb/lib-linux-x64-gnu@26.7.3-stable.1
sha512=5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7
library=$here/../../.clickhouse/26.7.3
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "the engine's library is for Linux on x86_64: elsewhere use ClickHouse's own server, see docs/clickhouse.md" >&2; exit 2; }
command -v python3 >/dev/null || { echo "python3 is missing" >&2; exit 2; }
# Several may start at once: the library is there when all of it is.
if [ ! -e "$library/libchdb.so" ]; then
  command -v npm >/dev/null || { echo "npm is missing: it gets the engine's library, once (Debian: apt-get install npm)" >&2; exit 2; }
  mkdir -p "$here/../../.clickhouse"
  some=$(mktemp -d "$here/../../.clickhouse/new.XXXXXX")
  trap 'rm -rf "$some"' EXIT
  (cd "$some" && npm pack --silent "$package" >/dev/null 2>npm.log) || { echo "npm can't get $package: $(tail -5 "$some/npm.log")" >&2; exit 1; }
  echo "$sha512  $(echo "$some"/*.tgz)" | sha512sum --quiet --check || { echo "$package isn't what it was: its checksum differs" >&2; exit 1; }
  tar -xzf "$some"/*.tgz -C "$some" package/libchdb.so
  mv -T "$some/package" "$library" 2>/dev/null || [ -e "$library/libchdb.so" ]
  rm -rf "$some"
fi
data=$(mkdir -p "$1" && cd "$1" && pwd)
# As with any server, more of its configuration may lie in config.d and users.d. The user `default` makes it listen, and can do nothing else.
mkdir -p "$data/config.d" "$data/users.d"
# listen_try: the native port of 127.0.0.1 is taken, serve.py stands there.
echo "<clickhouse>
  <users_config>$data/users.xml</users_config>
  <listen_host>127.0.0.1</listen_host><listen_host>127.0.0.2</listen_host><listen_try>1</listen_try>
</clickhouse>" >"$data/config.xml"
cat >"$data/users.xml" <<END
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/><networks><host>localhost</host></networks><profile>default</profile><quota>default</quota>
      <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants>
    </default>
  </users>
</clickhouse>
END
if ! compgen -e | grep -q '^TALLYSTICK_.*_SHA256$'; then
  [ -s "$data/password" ] || (umask 077 && head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"$data/password")
  hash=$(printf %s "$(cat "$data/password")" | sha256sum | cut -d' ' -f1)
  for role in ADMIN INGEST API ALERTS READER; do export "TALLYSTICK_${role}_SHA256=$hash"; done
  echo "TALLYSTICK_CLICKHOUSE=clickhouse://tallystick_admin@127.0.0.1:${2:-8123}/tallystick TALLYSTICK_CLICKHOUSE_PASSWORD=\$(cat $data/password)"
fi
cp "$here/users.xml" "$data/users.d/tallystick.xml"
[ $# -lt 4 ] || cp "$4" "$data/config.d/given.xml"
cd "$data"  # where the engine leaves its cache of schemas
exec python3 "$here/serve.py" "$library/libchdb.so" "$data" "${2:-8123}" "${3:-9000}"
