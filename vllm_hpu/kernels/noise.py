"""Gumbel noise that depends on (seed, position, token) and on nothing else.

A counter-based hash needs no generator state: a seeded request draws the same tokens whatever
shares its batch, and a draft model and its verification can agree on a draw. The hash is
MurmurHash3 (x86, 32 bit; A. Appleby, public domain) over the words seed low, seed high, position,
token, the same construction vLLM uses, so that a seed gives the same tokens as on other devices.
Arithmetic is int32 and wraps, because the card has no fast 64-bit integers.
"""

import torch


def _signed(word: int) -> int:
    """The int32 with the bits of an unsigned 32-bit constant."""
    return word - (1 << 32) if word >= 1 << 31 else word


_C1, _C2, _C3 = _signed(0xCC9E2D51), _signed(0x1B873593), _signed(0xE6546B64)
_F1, _F2 = _signed(0x85EBCA6B), _signed(0xC2B2AE35)
_WORD_BYTES = 16  # length of the hashed message, mixed in at its end
# Shifts the positions of a draft model's noise away from the target's: a proposal and the
# residual it is resampled from must be independent. No context is that long.
_DRAFT_SALT = 1 << 30


def _shift_right(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift; torch's shift of a signed integer copies the sign bit."""
    return (value >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _rotate(value: torch.Tensor, bits: int) -> torch.Tensor:
    high = _shift_right(value, 32 - bits)
    return (value << bits).bitwise_or_(high)


def _scramble(word: torch.Tensor) -> torch.Tensor:
    """Mix one message word, before it meets the state."""
    return _rotate(word * _C1, 15).mul_(_C2)


def _absorb(state: torch.Tensor, scrambled: torch.Tensor) -> torch.Tensor:
    return _rotate(state ^ scrambled, 13).mul_(5).add_(_C3)


def _low_word(value: torch.Tensor) -> torch.Tensor:
    return ((value << 32) >> 32).to(torch.int32)


def hash_rows(seeds: torch.Tensor, positions: torch.Tensor, domain: int = 0) -> torch.Tensor:
    """Hash state after seed and position, [N, 1] int32. seeds, positions: [N] int64.

    Different `domain` (unsigned 32 bit) give independent hashes.
    """
    state = torch.full_like(seeds, _signed(domain), dtype=torch.int32)
    for word in (_low_word(seeds), (seeds >> 32).to(torch.int32), _low_word(positions)):
        state = _absorb(state, _scramble(word))
    return state[:, None]


def hash_tokens(rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """32 random bits per (row, token), [N, V] int32.

    rows: [N, 1] int32 from hash_rows; tokens: [V] or [N, V] int32.
    """
    bits = _absorb(rows, _scramble(tokens)).bitwise_xor_(_WORD_BYTES)
    bits.bitwise_xor_(_shift_right(bits, 16)).mul_(_F1)
    bits.bitwise_xor_(_shift_right(bits, 13)).mul_(_F2)
    return bits.bitwise_xor_(_shift_right(bits, 16))


def uniform(bits: torch.Tensor) -> torch.Tensor:
    """(bits + 0.5) / 2**32 in float32, bits read as unsigned.

    The two halves are converted separately, since only 24 of 32 bits fit a float32: near 0, where
    float32 is fine-grained, all 32 bits count. Can round up to 1.
    """
    low = (bits & 0xFFFF).float().add_(0.5).mul_(2.0**-32)
    return low.add_(_shift_right(bits, 16).float(), alpha=2.0**-16)


def gumbel(seeds: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, [N, V] float32.

    seeds, positions: [N] int64; tokens: [V] or [N, V] int32. The large values, which decide an
    argmax, come from u near 0: -log(-log(1 - u)). log1p keeps them exact; u = 1 gives the
    smallest noise, which the clamp keeps finite.
    """
    u = uniform(hash_tokens(hash_rows(seeds, positions), tokens))
    return u.clamp_(max=1.0 - 2.0**-24).neg_().log1p_().neg_().log_().neg_()


def gumbel64(seeds: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise in float64, from 53 random bits. Arguments as for `gumbel`."""
    low = hash_tokens(hash_rows(seeds, positions), tokens).long() & 0xFFFFFFFF
    high = hash_tokens(hash_rows(seeds, positions, domain=0x9E3779B9), tokens).long()
    # 64 bits, of which the upper 53: a mantissa. `high` is sign-extended: drop what overflows.
    bits = ((high & 0xFFFFFFFF) << 21) | (low >> 11)
    u = bits.double().add_(0.5).mul_(2.0**-53).clamp_(max=1.0 - 2.0**-53)
    return u.log_().neg_().log_().neg_()


def draft_positions(positions: torch.Tensor) -> torch.Tensor:
    """Positions to draw a draft model's noise at."""
    return positions + _DRAFT_SALT
