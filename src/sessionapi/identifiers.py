"""Usernames as Unicode identifiers, and text without invisible characters.

A username follows UAX 31. It consists of `XID_Continue` characters, as Python's identifiers do, plus
`@ . + - _`, without `Default_Ignorable_Code_Point`. A combining mark counts as part of the preceding letter.
Names are stored in NFKC and compared after case folding, so that names which differ only in letter case,
width or composition are the same.

Device names, e-mail addresses and other text that is shown to people may contain any visible characters.
"""

import re
import unicodedata

from sessionapi.errors import FieldError, ValidationFailed

MAX_NAME = 150
"""The maximum length of a username, in NFKC characters."""
IGNORABLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""First and last code points with `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt, Unicode 17.0).

The property already covers unassigned code points that later versions may use. Python's `unicodedata` does
not have it.
"""
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Characters with `White_Space` (PropList.txt). `str.strip` alone would remove U+001C to U+001F too."""
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_IGNORABLE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in IGNORABLE) + "]")
_SIGNS = "@.+-_"
_AS_LETTERS = str.maketrans(_SIGNS, "a" * len(_SIGNS))
_ASCII_NAME = re.compile(rf"[A-Za-z0-9@.+_-]{{1,{MAX_NAME}}}")
_EARLIER_NAME = re.compile(rf"[\w@.+-]{{1,{MAX_NAME}}}")
"""Names that earlier versions accepted. They may contain numeric symbols and fillers, which identifiers
cannot contain.
"""


def parse_name(text: str) -> tuple[str, str]:
    """Return (name to store, unique key) of a new username, after removing the white space around it.

    Raises ValidationFailed if the name is not valid.
    """
    if _ASCII_NAME.fullmatch(text):  # most names; unicodedata and isidentifier would take six times as long
        return text, text.lower()
    name = _normalised(text)
    reason = _reason_to_refuse(name)
    if reason is not None:
        raise ValidationFailed(field_errors=[FieldError("username", "invalid_username", reason)])
    return name, _key(name)


def lookup_key(text: str) -> str | None:
    """Return the unique key of a typed username, or None if no account can have it.

    Names that only earlier versions accepted still have a key, so that their owners can sign in and
    administrators can find them.
    """
    if _ASCII_NAME.fullmatch(text):
        return text.lower()
    name = _normalised(text)
    known = _EARLIER_NAME.fullmatch(name) or _reason_to_refuse(name) is None
    return _key(name) if known else None


def strip(text: str) -> str:
    """Remove leading and trailing white space, as Unicode defines it."""
    return text.strip(WHITE_SPACE)


def spellings(text: str) -> tuple[str, ...]:
    """Return the distinct forms of a text: as received, in NFC and in NFD.

    Some systems encode an accented letter as one code point, others as a letter and a combining mark.
    """
    if text.isascii():
        return (text,)
    return tuple(
        dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)))
    )


def length(text: str) -> int:
    """Return the number of characters. A letter with a mark counts once if NFC has one code point for it."""
    return len(text) if text.isascii() else min(len(text), len(unicodedata.normalize("NFC", text)))


def without_invisible(text: str) -> str:
    """Remove the characters that `invisible` finds."""
    return text if invisible(text) is None else "".join(each for each in text if invisible(each) is None)


def invisible(text: str) -> str | None:
    """Return the first character that is not drawn or that changes how other text is drawn, or None.

    These are controls, format characters, lone surrogates, line and paragraph separators, and characters with
    `Default_Ignorable_Code_Point`. Spaces are visible.
    """
    if text.isascii() and text.isprintable():
        return None
    found = (each for each in text if unicodedata.category(each) in _INVISIBLE_CATEGORIES)
    ignorable = _IGNORABLE.search(text)
    return next(found, None) or (ignorable.group() if ignorable else None)


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFKC", strip(text))


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name.casefold())


def _reason_to_refuse(name: str) -> str | None:
    if not 1 <= len(name) <= MAX_NAME:
        return f"Use 1 to {MAX_NAME} letters, digits and @ . + - _"
    sign = invisible(name)
    if sign is not None:
        return f"Remove the invisible character U+{ord(sign):04X}."
    # Put a letter in front, because a name may begin with a digit and an identifier may not.
    if not f"a{name.translate(_AS_LETTERS)}".isidentifier():
        return f"Use 1 to {MAX_NAME} letters, digits and @ . + - _"
    if any(before in _SIGNS and _is_mark(each) for before, each in zip("." + name, name, strict=False)):
        return "A combining mark must follow a letter or a digit."
    return None


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
