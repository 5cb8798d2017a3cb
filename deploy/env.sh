#!/usr/bin/env bash
# The passwords that docker-compose.yml asks for, made at random: deploy/env.sh [FILE]. FILE is .env if none is named; one that exists is left as it is.
# ClickHouse is told the SHA-256 of its users' passwords only.
set -euo pipefail
file=${1:-$(dirname "$0")/../.env}
umask 077
random() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
sha256() { printf %s "$1" | sha256sum | cut -d' ' -f1; }
set -o noclobber
{
  echo "# Made by deploy/env.sh. Whoever reads this may do everything: mode 600, and never into a repository."
  for role in ADMIN INGEST API ALERTS READER; do
    password=$(random)
    echo "CLICKHOUSE_${role}_PASSWORD=$password"
    echo "CLICKHOUSE_${role}_SHA256=$(sha256 "$password")"
  done
  echo "POSTGRES_PASSWORD=$(random)"
  echo "GRAFANA_PASSWORD=$(random)"
  # A cluster's id: 16 random bytes as Kafka writes them.
  echo "KAFKA_CLUSTER_ID=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22)"
} >"$file" || { echo "$file isn't made: take it away first if its passwords may be forgotten" >&2; exit 1; }
echo "$file has new passwords; Grafana's user is admin, its password GRAFANA_PASSWORD there" >&2
