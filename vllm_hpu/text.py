"""Figures as people read them: bytes, seconds, shares, and tables of them."""

from collections.abc import Sequence

_MIB, _GIB = 1 << 20, 1 << 30


def table(rows: Sequence[tuple[str, ...]], align: str) -> str:
    """Columns as wide as needed, two blanks apart; ``align`` has an l or an r for each."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share from 0 to 1.

    >>> percent(0.1234), percent(0.0004), percent(0.0)
    ('12.3 %', '0.04 %', '0 %')
    """
    if share and share < 0.001:
        return f"{100 * share:.2f} %"
    return f"{100 * share:.3g} %"


def size(number: int) -> str:
    """Bytes in a unit that suits them.

    >>> size(362_300), size(83 << 20), size(1405 << 30)
    ('0.346 MiB', '83 MiB', '1,405 GiB')
    """
    small = number < _GIB
    value = number / (_MIB if small else _GIB)
    digits = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{digits} {'MiB' if small else 'GiB'}"


def duration(seconds: float) -> str:
    """Seconds in the two largest units.

    >>> duration(0.25), duration(75), duration(5150), duration(433350)
    ('0.2 s', '1 min 15 s', '1 h 25 min', '5 d 0 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
