"""What was read from Kafka and isn't entered yet, and which offsets may be committed. Pure: the clock is passed in."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from tallystick.ingest.messages import Message, Partition


class Gathering:
    """Messages on their way into the next batch, in the order in which they were read.

    max_spans, max_bytes: at which a batch is closed; only one message alone may have more. window_s: the longest that a message waits for others.
    """

    def __init__(self, *, max_spans: int, max_bytes: int, window_s: float) -> None:
        self._max_spans, self._max_bytes, self._window_s = max_spans, max_bytes, window_s
        self._waiting: deque[tuple[Message, float]] = deque()
        self.spans = self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Nothing is gained by reading more before this is written."""
        return self.spans >= self._max_spans or self.bytes >= self._max_bytes

    def add(self, message: Message, now: float) -> None:
        self._waiting.append((message, now))
        self.spans += message.spans
        self.bytes += message.record.size

    def due_in(self, now: float) -> float | None:
        """Seconds until the next batch is to be written, 0 if it is by now; None where nothing waits."""
        if not self._waiting:
            return None
        return 0.0 if self.full else max(0.0, self._waiting[0][1] + self._window_s - now)

    def take(self) -> list[Message]:
        """The next batch, taken out."""
        taken: list[Message] = []
        spans = size = 0
        while self._waiting:
            message, _ = self._waiting[0]
            spans, size = spans + message.spans, size + message.record.size
            if taken and (spans > self._max_spans or size > self._max_bytes):
                break
            taken.append(self._waiting.popleft()[0])
        self._weigh()
        return taken

    def drop(self, partitions: Collection[Partition]) -> int:
        """Forget what is waiting of partitions that are another's now, who reads it again. Returns how many messages that were."""
        before = len(self._waiting)
        self._waiting = deque(kept for kept in self._waiting if kept[0].record.partition not in partitions)
        self._weigh()
        return before - len(self._waiting)

    def _weigh(self) -> None:
        self.spans = sum(message.spans for message, _ in self._waiting)
        self.bytes = sum(message.record.size for message, _ in self._waiting)


class Progress:
    """From reading to committing, for each partition that is ours: never is an offset to be committed before all messages below it are dealt with.

    Batches are dealt with one after the other, in the order in which they were read.
    """

    def __init__(self) -> None:
        self._writing: dict[Partition, int] = {}
        self._done: dict[Partition, int] = {}

    def begin(self, batch: Sequence[Message]) -> None:
        """A batch goes to the writer. The one before it has ended."""
        self._writing = ends(batch)

    def end(self) -> dict[Partition, int]:
        """It is on disk, or among the dead letters. Returns the ends of what is still ours of it."""
        ended, self._writing = self._writing, {}
        self._done.update(ended)
        return ended

    def lose(self, partitions: Iterable[Partition]) -> None:
        """They are another's now, who has read, or will read again, what wasn't committed."""
        for partition in partitions:
            self._writing.pop(partition, None)
            self._done.pop(partition, None)

    def to_commit(self) -> dict[Partition, int]:
        """Partition → the offset after the last message that is dealt with, where that isn't committed."""
        return dict(self._done)

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """These were acknowledged."""
        for partition, offset in offsets.items():
            if self._done.get(partition) == offset:
                del self._done[partition]


def ends(batch: Iterable[Message]) -> dict[Partition, int]:
    """Partition → the offset after its last message in the batch."""
    found: dict[Partition, int] = {}
    for message in batch:
        found[message.record.partition] = message.record.offset + 1
    return found
