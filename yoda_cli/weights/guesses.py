"""What a person may have meant by a name that nothing has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

NAMED = 12  # names that one line says
SURE = 0.85  # likeness, up to 1, from which no other name is thought of
SLIP = 0.72  # likeness, up to 1, from which a name is taken for another misspelt
LEAST_BEGUN = 3  # letters that may be the beginning of a name


ALL_NAMES = "yoda weights list --all shows what there is"
MODELS_ARE = "yoda weights list shows all; or give a checkpoint file"


def near(name: str, known: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Names that may have been meant, the nearest first: those that begin like ``name``, and those
    that differ by a slip of the finger. None that a person would not recognise."""
    asked = name.lower()
    if sure := get_close_matches(asked, known, 1, cutoff=SURE):
        return sure
    begun = [one for one in known if len(asked) >= LEAST_BEGUN and one.lower().startswith(asked)]
    slips = get_close_matches(asked, known, 3, cutoff=SLIP)
    return list(dict.fromkeys([*slips[:1], *begun, *slips]))


def hint(name: str, known: Sequence[str] | Mapping[str, object], otherwise: str = ALL_NAMES) -> str:
    """What may have been meant; ``otherwise`` is said where too many are known to name them."""
    if close := near(name, known):
        return f"did you mean {close[0]}?"
    if len(known) > NAMED:
        return otherwise
    return f"there are {', '.join(sorted(known))}."
