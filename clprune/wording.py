"""Counts and differences within sentences: "1 seed" and "3 seeds", and never a minus before a zero."""

from __future__ import annotations

NOT_RUN_HERE = {
    "logged": "that were logged elsewhere",
    "own loop": "of a training of your own",
}  # epochs that no proxy run of ours had, by what stands for the proxy


def counted(n: int | str, noun: str) -> str:
    """A count, or one that is written already, with its noun.

    >>> counted(1, "seed"), counted(1200, "class"), counted("0.5", "training")
    ('1 seed', '1,200 classes', '0.5 trainings')
    """
    text = n if isinstance(n, str) else f"{n:,}"
    return f"{text} {noun}" + ("" if text == "1" else "es" if noun.endswith("s") else "s")


def points(share: float, form: str = "+.2f") -> str:
    """A difference of shares in points of a hundred.

    >>> points(0.0123), points(-0.00001)
    ('+1.23', '+0.00')
    """
    return unsigned_zero(100 * share, form)


def unsigned_zero(value: float, form: str) -> str:
    """`value` in a format of floats; what rounds to zero has no minus.

    >>> unsigned_zero(-0.004, ",.2f"), unsigned_zero(-0.006, ",.2f")
    ('0.00', '-0.01')
    """
    return format(value, form.replace(".", "z.", 1) if "," not in form else form.replace(",", "z,", 1))
