"""A prompt cache over a trace's blocks: which of a prompt's leading blocks a provider would have served from its cache."""

BLOCK_TOKENS = 512
LIFETIME_NS = 300 * 1_000_000_000
"""Five minutes after its last use a block is gone: Anthropic's default lifetime (docs.anthropic.com, prompt caching)."""


class PromptCache:
    """Blocks seen, by id, with the time of their last use. Ids stand for a block *and* all before it, as in Mooncake's trace."""

    def __init__(self, lifetime_ns: int = LIFETIME_NS) -> None:
        self._lifetime_ns = lifetime_ns
        self._used: dict[int, int] = {}

    def read(self, blocks: tuple[int, ...], at_ns: int, input_tokens: int) -> int:
        """Tokens of a prompt that come from the cache: its unbroken run of leading live blocks, at most the prompt.

        All of the prompt's blocks are live after it.
        """
        used = self._used
        oldest = at_ns - self._lifetime_ns
        hits = 0
        for block in blocks:
            last = used.get(block)
            if last is None or last < oldest:
                break
            hits += 1
        for block in blocks:
            used[block] = at_ns
        return min(hits * BLOCK_TOKENS, input_tokens)
