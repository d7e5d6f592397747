"""One hash for everything that is seeded by position: orders, scenes, crops, and each image's generator."""

MASK_64 = (1 << 64) - 1


def mix(seed: int, position: int) -> int:
    """splitmix64 of (seed, position), 64 bits: neighbouring seeds and positions give unrelated numbers."""
    value = ((seed & MASK_64) + 0x9E3779B97F4A7C15 * (position + 1)) & MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK_64
    return value ^ (value >> 31)
