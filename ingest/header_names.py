"""Names of headers that aren't UTF-8: brokers take them, and kafka-python's reader doesn't.

Its `poll` raises CorruptRecordError for a message with one (3.0.12), doesn't get past it, and if it is called again never returns: who may write
one topic would stop the consumers of all. Nothing depends on such a header, so its name is read with what can't be decoded replaced.
"""

from typing import Any

from kafka.record import default_records, memory_records
from kafka.record.util import decode_varint

_records: Any = default_records
_memory: Any = memory_records


class _Batch(_records.DefaultRecordBatch):  # type: ignore[misc]
    """Reads a record as its base does, and again where that failed at a name."""

    def _read_msg(self, *given: Any) -> Any:
        begin = self._pos
        try:
            return super()._read_msg(*given)
        except UnicodeDecodeError:
            self._mend(begin)
            return super()._read_msg(*given)

    def _mend(self, begin: int) -> None:
        """Put `?` in the place of names of the record at `begin` that aren't UTF-8: their length stays."""
        # Decompressed it is the batch's own, as it came a part of what was fetched.
        buffer: bytearray = bytearray(self._buffer)
        self._buffer: Any = buffer
        place = begin
        for _ in range(4):  # length, attributes, time, offset
            _, place = decode_varint(buffer, place)
        for _ in range(2):  # key, value
            place = self._after(place)[1]
        count, place = decode_varint(buffer, place)
        for _ in range(count):
            name, end = self._after(place)
            try:
                buffer[name:end].decode()
            except UnicodeDecodeError:
                buffer[name:end] = b"?" * (end - name)
            place = self._after(end)[1]

    def _after(self, place: int) -> tuple[int, int]:
        """Where the bytes whose length stands at `place` begin and end."""
        size, begin = decode_varint(self._buffer, place)
        return begin, begin + max(0, size)


def read_any_header_name() -> None:
    """For all consumers of this process."""
    _memory.DefaultRecordBatch = _Batch
