#!/usr/bin/env bash
# Docker Compose from its Go module into .compose/, where it isn't installed: it reads and checks docker-compose.yml without an engine. Needs Go; minutes.
set -euo pipefail
version=v2.40.3
here=$(cd "$(dirname "$0")/.." && pwd)
command -v go >/dev/null || { echo "neither docker compose nor Go is here: install one of them" >&2; exit 2; }
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export GOFLAGS=-mod=mod
cd "$work"
module=$(go mod download -json "github.com/docker/compose/v2@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
cp -r "$module" compose
chmod -R u+w compose
mkdir -p "$here/.compose"
cd compose
go build -buildvcs=false -o "$here/.compose/docker-compose" ./cmd
