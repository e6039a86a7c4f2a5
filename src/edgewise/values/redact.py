"""Text as others may see it: without secrets, and without what a terminal would obey."""

import re

HIDDEN = "***"
# A URL's password reaches to the last @ before a space, since people leave @ and / unescaped; in
# quotes it may hold spaces, too.
_QUOTED_URL = re.compile(r"""(?P<quote>["'])((?:[\w+.-]+:/+)?[^\s:/@"']*):(?:(?!(?P=quote)).)*@""")
_URL = re.compile(r"""(?<![\w+.-])([\w+.-]+:/+[^\s:/@"']*):\S*@""")
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_NAME = (
    r"(?:(?<![^\W_])pass|password|passwd|passphrase|pwd|secret|token|credential"
    r"|(?:api|access|private|auth)[_-]?key)s?"
)
_KEYED = re.compile(
    rf"""(?P<key>{_NAME}["']?\s*(?:=|(?<=["']):)\s*)"""
    r"""(?P<value>\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\[[^\]]*\]|[^\s&,;)\]}"'#]+)""",
    re.IGNORECASE | re.DOTALL,
)
_PASSWORD = re.compile("pass|pwd", re.IGNORECASE)
_PLAIN = re.compile(r"[\d_.]+|true|false|none|null", re.IGNORECASE)
# Controls other than newline and tab, marks that turn the direction of writing, lone surrogates.
_OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """The text with every password, token and key that stands in it as ***.

    Known are passwords of URLs and what is given to a name such as password, secret, token or
    api_key: in TOML, JSON, a URL's query or a connection string.

    Examples:
        >>> redact("postgresql://me:swordfish@host/db?sslpassword=tuna")
        'postgresql://me:***@host/db?sslpassword=***'
    """
    text = _QUOTED_URL.sub(rf"\g<1>\g<2>:{HIDDEN}@", text)
    text = _URL.sub(rf"\1:{HIDDEN}@", text)
    return _KEYED.sub(_hide, _BEARER.sub(rf"\1{HIDDEN}", text))


def _hide(found: re.Match[str]) -> str:
    """Numbers and truths are settings (`class_token = true`), except as a password."""
    key, value = found["key"], found["value"]
    if _PLAIN.fullmatch(value) and not _PASSWORD.search(key):
        return found[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{key}{quote}{HIDDEN}{quote}"


def names_secret(text: str) -> bool:
    """Whether a name is that of a password, a token or a key.

    Examples:
        >>> names_secret("loss.api_key"), names_secret("loss.keys")
        (True, False)
    """
    return re.search(_NAME, text, re.IGNORECASE) is not None


def legible(text: str) -> str:
    r"""The text with control characters written out, so that no terminal obeys them.

    Examples:
        >>> legible("red \x1b[31m")
        'red \\x1b[31m'
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
