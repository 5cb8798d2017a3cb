#!/usr/bin/env bash
# A real Apache Kafka broker (KRaft, one node) on 127.0.0.1 for development and tests: run.sh DATA [PORT]. Needs Java 17 or later, and Maven
# once, which puts the jars into .kafka/libs. DATA keeps what was written; the controller takes PORT + 1. Not for production: one replica.
# One of several: KAFKA_PORTS are the ports of all of them, divided by spaces, PORT among them. KAFKA_HEAP is what Java may take, 512m.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
libs=$here/../../.kafka/libs
data=$(mkdir -p "$1" && cd "$1" && pwd)
port=${2:-9092}
controller=$((port + 1))
node=0 voters=
for one in ${KAFKA_PORTS:-$port}; do
  number=$((${number:-0} + 1))
  voters=$voters${voters:+,}$number@127.0.0.1:$((one + 1))
  [ "$one" != "$port" ] || node=$number
done
copies=$((number < 3 ? number : 3))
# Several may start at once: the jars are there when all of them are.
if [ ! -d "$libs" ]; then
  mkdir -p "$here/../../.kafka"
  some=$(mktemp -d "$here/../../.kafka/libs.XXXXXX")
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$some"
  mv -T "$some" "$libs" 2>/dev/null || rm -rf "$some"
fi
cat >"$data/server.properties" <<END
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/log
num.partitions=3
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
END
java=(java -Xms128m -Xmx${KAFKA_HEAP:-512m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true -Dkafka.logs.dir="$data" -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$libs/*")
if [ ! -d "$data/log" ]; then
  "${java[@]}" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c "$data/server.properties"
fi
exec "${java[@]}" kafka.Kafka "$data/server.properties"
