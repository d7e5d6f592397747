"""The order in which a data set of n items is read: a keyed permutation per epoch, in O(1) memory.

Position p belongs to epoch p // n. Within an epoch the items are permuted by a balanced Feistel network on the smallest
even number of bits that holds n, walked until it lands below n (Black & Rogaway 2002, "cycle walking"). So the item at any
position is known at once, every item is read exactly once an epoch, and a resumed run needs no state but its position.
"""

from unclip.seeds import mix

ROUNDS = 8  # with 4, small sets show a bias that a chi-squared test sees


class Order:
    """position -> index in [0, n): epoch after epoch, each a permutation of its own."""

    def __init__(self, n: int, seed: int):
        if n < 1:
            raise ValueError(f"an order needs at least one item, got {n}")
        self.n = n
        self.seed = seed
        self._half = max(1, ((n - 1).bit_length() + 1) // 2)

    def __call__(self, position: int) -> int:
        epoch, index = divmod(position, self.n)
        key = mix(self.seed, epoch)
        while True:
            index = self._feistel(index, key)
            if index < self.n:
                return index

    def _feistel(self, value: int, key: int) -> int:
        mask = (1 << self._half) - 1
        left, right = value >> self._half, value & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (mix(key ^ right, turn) & mask)
        return left << self._half | right
