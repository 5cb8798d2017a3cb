"""librdkafka's in-process mock Kafka cluster, with fault injection, through the library in confluent-kafka's wheel.

For tests of faults only: kafka-python talks to it with api_version=(2, 3). Its transactions and fencing are not real.

    cluster = MockCluster(brokers=3); cluster.create_topic("t", partitions=3)
    KafkaProducer(bootstrap_servers=cluster.bootstrap, api_version=(2, 3))
    cluster.push_errors(PRODUCE, 6, 7, 19)      # the next three produce requests fail with these codes
    cluster.down(1); cluster.up(1)
"""

import ctypes
import importlib.util
import pathlib
from typing import Any

PRODUCE, FETCH, METADATA, OFFSET_COMMIT, JOIN_GROUP = 0, 1, 3, 8, 11


def _library() -> Any:
    spec = importlib.util.find_spec("confluent_kafka")
    assert spec is not None
    assert spec.origin is not None
    (file,) = pathlib.Path(spec.origin).parents[1].glob("confluent_kafka.libs/librdkafka-*.so*")
    lib = ctypes.CDLL(str(file))
    pointer = ctypes.c_void_p
    lib.rd_kafka_conf_new.restype = lib.rd_kafka_new.restype = lib.rd_kafka_mock_cluster_new.restype = pointer
    lib.rd_kafka_new.argtypes = [ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_size_t]
    lib.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    lib.rd_kafka_mock_cluster_bootstraps.restype, lib.rd_kafka_mock_cluster_bootstraps.argtypes = ctypes.c_char_p, [pointer]
    lib.rd_kafka_mock_topic_create.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    lib.rd_kafka_mock_push_request_errors.argtypes = [pointer, ctypes.c_int16, ctypes.c_size_t]
    lib.rd_kafka_mock_broker_set_down.argtypes = lib.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
    lib.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, ctypes.c_int]
    lib.rd_kafka_mock_cluster_destroy.argtypes = lib.rd_kafka_destroy.argtypes = [pointer]
    return lib


class MockCluster:
    def __init__(self, brokers: int = 3) -> None:
        self._lib = _library()
        error = ctypes.create_string_buffer(512)
        self._client = self._lib.rd_kafka_new(0, self._lib.rd_kafka_conf_new(), error, 512)
        assert self._client, error.value
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, brokers)
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int = 3) -> None:
        self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)

    def push_errors(self, api: int, *codes: int) -> None:
        self._lib.rd_kafka_mock_push_request_errors(self._cluster, api, len(codes), *map(ctypes.c_int, codes))

    def down(self, broker: int) -> None:
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def up(self, broker: int) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def slow(self, broker: int, milliseconds: int) -> None:
        self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)
