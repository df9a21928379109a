"""CRC-32C (Castagnoli, RFC 3720), many byte strings at once: numpy walks all of them in step, eight bytes at a time."""

from collections.abc import Sequence

import numpy as np

POLYNOMIAL = 0x82F63B78  # reversed
STRIDE = 8


def _tables() -> np.ndarray:
    """tables[k][b]: the register after byte b and k zero bytes, starting from 0; uint32 [8, 256]."""
    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = np.where(first & 1, (first >> 1) ^ np.uint32(POLYNOMIAL), first >> 1)
    tables = [first]
    for _ in range(STRIDE - 1):
        tables.append((tables[-1] >> 8) ^ first[tables[-1] & 0xFF])
    return np.stack(tables)


TABLES = _tables()


def crc32c(texts: Sequence[bytes]) -> np.ndarray:
    """CRC-32C of each byte string, uint32 [N]."""
    if not texts:
        return np.zeros(0, np.uint32)
    # Strings end together: zero bytes in front leave a zero register alone. The register's start value, all ones, is
    # the same as flipping the first four bytes; what a shorter string cannot take up is added at the end.
    width = -(-max(1, *map(len, texts)) // STRIDE) * STRIDE
    rows = np.frombuffer(b"".join(text.rjust(width, b"\0") for text in texts), np.uint8).reshape(-1, width)
    lengths = np.array([len(text) for text in texts])
    columns = rows.T.copy()  # [width, N]: one step reads one row
    for index in range(4):
        long_enough = np.flatnonzero(lengths > index)
        columns[width - lengths[long_enough] + index, long_enough] ^= 0xFF
    register = np.zeros(len(texts), np.uint32)
    for step in range(0, width, STRIDE):
        block = columns[step : step + STRIDE]
        following = TABLES[3][block[4]] ^ TABLES[2][block[5]] ^ TABLES[1][block[6]] ^ TABLES[0][block[7]]
        for index in range(4):
            following ^= TABLES[7 - index][block[index] ^ (register >> (8 * index)).astype(np.uint8)]
        register = following
    ones = np.uint32(0xFFFFFFFF)
    left_over = np.where(lengths < 4, ones >> (8 * np.minimum(lengths, 3)).astype(np.uint32), np.uint32(0))
    return register ^ left_over ^ ones
