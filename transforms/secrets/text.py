"""Text without credentials: the one rule for all text that leaves the process.

Credentials are user information before a host, and parameters with names from ``names`` in a path (``;token=…``), a
query or a fragment, also percent-encoded, and also in a URL that is itself a parameter. The search covers each
``://`` in a text, and each ``@`` before a host. Text without credentials stays unchanged.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from beamlabel.transforms.secrets.headers import without_headers
from beamlabel.transforms.secrets.names import (
    FILE_ENDINGS,
    PREFIXES,
    UNMISTAKABLE,
    beside,
    decoded,
    is_api_key,
    is_credential,
    names_path_part,
    parameter_name,
)
from beamlabel.transforms.secrets.spellings import is_spelled, respelled

# JSON may escape the slashes.
_OPENING = re.compile(r":\\?/\\?/")
_SCHEME = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*{_OPENING.pattern}")
_SCHEME_BEFORE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}\Z")
# A "%" that may encode a part of a URL or of user information.
_ENCODED_MARK = re.compile(r"(?i)%(?:25|3[abf]|23|40)")
# Schemes for which a user name before the host is a credential by itself. For other schemes only a password is one,
# since a container (abfs://container@account) and a user (sftp://user@host) are parts of an address.
_WEB = frozenset(("", "http", "https", "ws", "wss", "dav", "davs", "gs", "s3", "s3a", "s3n", "file"))
_WEB_OF_SERVERS = frozenset(("", "http", "https"))
# In the names of files and objects, `?`, `#` and `;` have no meaning.
_LITERAL = frozenset(("file", "gs"))
_AUTHORITY = re.compile(r"[^/?#\\]*")
# An invalid port: the start of a password that was cut at a slash, a blank or the like.
# The host of s3://arn:aws:s3:… holds colons, too.
_CUT_PASSWORD = re.compile(r"(?!arn:aws)[^\[\]@]*:(?!\d*$)")
_AT, _ENCODED_AT = re.compile("@"), re.compile("(?i)%(?:25)*40")
# Wide forms of the characters that separate a user, a password and a host; browsers read them as the plain ones.
_WIDE = str.maketrans("\uff20\ufe6b\uff1a\ufe55", "@@::")
# After a backslash, which only browsers read as a slash.
_BEHIND_BACKSLASH = re.compile(r"\\[^/?#@\s]*@")
# With one slash, or none.
_FEW_SLASHES = re.compile(
    r"(?i)\b((?:https?|ftps?|sftp|wss?|davs?|s3[an]?|gs):/?)[^\s/?#@\"'`<>:]{1,200}:[^\s/?#\"'`<>]{1,200}@(?=[\w\[])"
)
_PASSWORD_CHARACTERS = 200
_ROUNDS = 20
_REMEMBERED_CHARACTERS = 50
_QUOTES = "\"'`"
_END = re.compile(r"[\s\"'`<>\x00-\x1f\x7f]")
_PUNCTUATION = re.compile(r"[).,:;!?\]}]*\Z")
_NESTED = re.compile(r"(?i)[a-z][a-z0-9+.-]*%(?:25)*3a(?:%(?:25)*2f){2}[^\s\"'`<>&;#?]*")
_PAIRS = re.compile("([&;?])")
# A "=" after a name that may be a credential in a path, see ``names_path_part``.
_PATH_MARK = re.compile("(?i)(?:token|signature|hmac|hdnts|hdnea|hdntl|password|key|/x-[a-z-]*)=")
# In a path: `?`, `#` or `;`, encoded.
_ENCODED_QUERY = re.compile("(?i)%(?:25)*(?:3f|23|3b)")
# Another parameter in a value: w=1,token=…
_INNER = re.compile(r"[,|~!]([^,|~!=]+)=")

_NAME = r"[^\W_](?:[\w-]*[^\W_])?"
_HOST = rf"(?:localhost|\d+\.\d+\.\d+\.\d+|\[[0-9A-Fa-f:.]+\]|{_NAME}(?:\.{_NAME})*\.[^\W\d_]{{2,}})"
_AFTER_HOST = r"(?=[:/?#\s\"'`<>(),;|\\]|$)"
_BEGIN = r"(?:^|(?<=[\s\"'`(<\[{,;=|]))"
# user:password@host and a long token@host without a scheme; //user@host.
_BARE = re.compile(
    rf"{_BEGIN}(?!mailto:|\d+:)(?:"
    rf"[^\s\"'`<>(),;=|/\\?#@:]{{1,200}}:[^\s\"'`<>/?#]{{0,200}}@(?:{_HOST}{_AFTER_HOST}|{_NAME}(?=:\d|/))"
    rf"|(?=[^\s@/]*\d)(?=[^\s@/]*[A-Za-z])[A-Za-z0-9_+.=-]{{20,}}@{_HOST}{_AFTER_HOST})"
)
# No host ends like this: a4f0…@2x.png is a file, and no token before a host.
_FILE_NAME = re.compile(rf"(?i)\.(?:{FILE_ENDINGS})\Z")
_SCHEMELESS = re.compile(
    rf"(?:^|(?<=[\s\"'`(<\[{{,;=|]))(?:\\?/){{2}}([^\s/?#\"'`<>\\]*@)?(?={_HOST}|{_NAME}[:/])"
)
_WITHOUT_SCHEME = ("www.", "WWW.", "Www.", "//")
_HOST_WITHOUT_SCHEME = re.compile(rf"(?i)www\.|//{_HOST}(?:[:/?#]|$)")
# A query without its URL, as in libraries' messages: "Retrying … /a.jpg?token=…".
_QUERY = re.compile(r"([?&;#])([^\s=&;#?\"'`<>]{1,100})=([^\s&;#\"'`<>]*)")


def public_text(text: str) -> str:
    """Any text without credentials: a message, a line of a file, a traceback.

    Idempotent. A URL ends at a blank or a quotation mark; in quotation marks, it ends at the closing one.
    """
    text = without_headers(text)
    is_plain = "://" not in text and "=" not in text and "%" not in text and "@" not in text.translate(_WIDE)
    if is_plain and not is_spelled(text):
        return text
    return _settled(text, lambda one: _without_queries(_scanned(one, is_uri=False)))


def public_uri(uri: str) -> str:
    """A location without credentials, for display and for output.

    Idempotent. Local paths without ``://`` or a user before a host stay verbatim. So do names of objects on
    ``gs://``, in which ``?``, ``#`` and ``@`` have no meaning, unless they were saved from a signed URL. A blank does
    not end a URL here.
    """
    at = uri.find("://")
    if at < 0:
        # This runs for every image, so a plain path or URL must not need a regular expression.
        is_plain = "@" not in uri and "%" not in uri and ":\\/" not in uri and not is_spelled(uri)
        if is_plain and not uri.startswith(_WITHOUT_SCHEME):
            return uri
    elif (
        ("@" not in uri and "?" not in uri and ";" not in uri and "#" not in uri)
        and uri.find("://", at + 3) < 0
        and ("%" not in uri or not _ENCODED_MARK.search(uri))
        and (uri.isascii() or "@" not in uri.translate(_WIDE))
        and "\\" not in uri
        and ("=" not in uri or not _PATH_MARK.search(uri))
    ):
        return uri
    return _settled(uri, lambda one: _scanned(one, is_uri=True))


def public_values(value: Any) -> Any:
    """JSON without credentials: applies ``public_uri`` to all text in it, including the keys of objects."""
    if isinstance(value, str):
        return public_uri(value)
    if isinstance(value, dict):
        return {public_values(key): public_values(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(public_values, value)) if type(value) in (list, tuple) else value
    return value


def public_url(url: str) -> str:
    """One URL of a kind that can hold credentials, without them; the part after ``://`` is read as on the web."""
    at = url.find("://")
    return _settled(url, lambda one: one[: at + 3] + _cleaned(one[at + 3 :], one[:at].lower(), literal=False))


def _settled(text: str, clean: Callable[[str], str]) -> str:
    """Cleans until nothing changes: a removal may join the parts of another credential."""
    for _ in range(_ROUNDS):
        cleaned = clean(text)
        if cleaned == text and is_spelled(text):
            plain = respelled(text)
            cleaned = found if (found := clean(plain)) != plain else text
        if cleaned == text:
            break
        text = cleaned
    return text


def _scanned(text: str, *, is_uri: bool) -> str:
    """The text with each of its URLs cleaned; with ``is_uri``, blanks belong to the URL at its start."""
    parts: list[str] = []
    openings = [(found.start(), found.end()) for found in _OPENING.finditer(text)]
    starts = [_start(text, at) for at, _ in openings]
    ends = [*starts[1:], len(text)][: len(starts)]
    done = 0
    if is_uri and _HOST_WITHOUT_SCHEME.match(text):
        done = starts[0] if starts else len(text)
        first = 2 if text.startswith("//") else 0
        parts.append(text[:first] + _cleaned(text[first:done], "", literal=False))
    for (at, rest), start, end in zip(openings, starts, ends, strict=True):
        if not (is_uri and start == 0):
            end = min(end, _end_of_url(text, start, rest))
        kind = text[start:at].lower()
        url = _cleaned(text[rest:end], kind, literal=kind in _LITERAL)
        if is_uri and start == 0 and "@" in url:
            # The end of a URL with blanks is unknown.
            head, blank, tail = url.partition(" ")
            url = head + _outside(blank + tail)
        parts += [_outside(text[done:start]), text[start:rest], url]
        done = end
    parts.append(_outside(text[done:]))
    return "".join(parts)


def _start(text: str, at: int) -> int:
    """The start of the scheme before an opening; the opening itself if there is no scheme."""
    before = _SCHEME_BEFORE.search(text, max(at - 41, 0), at)
    return before.start() if before else at


def _end_of_url(text: str, start: int, rest: int) -> int:
    quote_mark = text[start - 1] if start and text[start - 1] in _QUOTES else ""
    closing = text.find(quote_mark, rest) if quote_mark else -1
    if closing >= 0 and "\n" not in text[rest:closing]:
        return closing
    found = _END.search(text, rest)
    end = found.start() if found else len(text)
    if found and found[0] in _QUOTES and text[end - 1] == "=":
        # token="…"
        closing = text.find(found[0], end + 1, end + _PASSWORD_CHARACTERS)
        if closing >= 0 and "\n" not in text[end:closing]:
            return closing + 1
    authority = _AUTHORITY.match(text, rest, end)
    if authority and "@" not in text[rest:end] and _CUT_PASSWORD.match(authority[0]):
        # The password holds a blank or a quotation mark.
        at = text.find("@", end, end + _PASSWORD_CHARACTERS)
        if at >= 0 and "\n" not in text[end:at]:
            found = _END.search(text, at)
            return found.start() if found else len(text)
    punctuation = _PUNCTUATION.search(text, rest, end)
    return punctuation.start() if punctuation else end


def _outside(text: str) -> str:
    """Text outside URLs: cleans users and passwords before a host, and URLs that are percent-encoded as a whole."""
    if "@" in text:
        text = _FEW_SLASHES.sub(r"\1", text)
        text = _BARE.sub(_host_of, text)
        text = _SCHEMELESS.sub(lambda found: found[0].removesuffix(found[1] or ""), text)
    return _NESTED.sub(_nested, text) if "%" in text else text


def _host_of(found: re.Match[str]) -> str:
    host = found[0].rpartition("@")[2]
    after = found.string[found.end() : found.end() + 1]
    return found[0] if _FILE_NAME.search(host) and after not in (":", "/") else host


def _nested(found: re.Match[str]) -> str:
    plain = decoded(found[0])
    cleaned = public_text(public_uri(plain))
    return found[0] if cleaned == plain else quote(cleaned, safe="")


def _cleaned(rest: str, kind: str, *, literal: bool) -> str:
    """The part after ``://``, without user information and parameters that are credentials."""
    rest = _without_user(rest, kind)
    if literal and not _is_signed(rest):
        return rest
    rest, hash_sign, fragment = rest.partition("#")
    path, question, query = rest.partition("?")
    if ";" in path:
        segments = (segment.partition(";") for segment in path.split("/"))
        path = "/".join(
            head + (_parameters(";" + tail) if tail else semicolon) for head, semicolon, tail in segments
        )
    path = _path(path, is_web=kind in _WEB_OF_SERVERS)
    if query:
        kept = _parameters(query)
        query, question = (query, question) if kept == query else (kept, "?" if kept else "")
    if fragment:
        kept = _parameters(fragment)
        fragment, hash_sign = (fragment, hash_sign) if kept == fragment else (kept, "#" if kept else "")
    return path + question + query + hash_sign + fragment


def _path(path: str, *, is_web: bool) -> str:
    """A path without URLs, encoded queries and parts that hold credentials."""
    if "%" in path:
        path = _NESTED.sub(_nested, path)
        if begin := _ENCODED_QUERY.search(path):
            query = decoded(path[begin.end() :])
            kept = _parameters(query)
            if kept != query:
                path = path[: begin.start()] + (begin[0] + quote(kept, safe="") if kept else "")
    if "@" in path:
        path = _FEW_SLASHES.sub(r"\1", path)
    if is_web and "=" in path:
        path = "/".join(_path_part(part) for part in path.split("/"))
    return path


def _path_part(part: str) -> str:
    """A part of a path, without parameters such as ``edge-cache-token=…&Signature=…``."""
    if "=" not in part or not any(map(names_path_part, map(parameter_name, part.split("&")))):
        return part
    return _parameters(part)


def _without_user(rest: str, kind: str) -> str:
    authority = _AUTHORITY.match(rest)
    host = authority[0] if authority else ""
    if not host.isascii():
        host = host.translate(_WIDE)
    if "@" not in host:
        if _CUT_PASSWORD.match(host) and (at := _AT.search(rest) or _ENCODED_AT.search(rest)):
            return rest[at.end() :]
        if encoded := list(_ENCODED_AT.finditer(host)):
            return rest[encoded[-1].end() :]
        if kind not in _LITERAL and (behind := _BEHIND_BACKSLASH.match(rest, len(host))):
            return rest[behind.end() :]
        return rest
    user, _, name = host.rpartition("@")
    kind = kind.rpartition("+")[2]  # git+https
    takes_password = kind not in _WEB and ":" not in user
    if takes_password and (kind.startswith(("abfs", "wasb")) or len(user) < 20 or user.isalpha()):
        return rest
    return name + rest[len(host) :]


def _is_signed(rest: str) -> bool:
    """Whether the name of a file or object has parameters that only signed URLs have."""
    _, question, query = rest.partition("?")
    names = map(parameter_name, _PAIRS.split(query)[::2]) if question else ()
    return any(name.startswith(PREFIXES) or name in UNMISTAKABLE for name in names)


def _parameters(query: str) -> str:
    """A query, or a fragment of the same form, without its parameters that are credentials.

    The other parameters stay verbatim and in their order, without the credentials of URLs and queries in their
    values. Names are compared decoded and without regard to case; ``&``, ``;`` and ``?`` separate the parameters.
    """
    pieces = _PAIRS.split(query)
    pairs, separators = pieces[::2], ["", *pieces[1::2]]
    names, are_credentials = zip(*map(_known, pairs), strict=True)
    also = beside(frozenset(names))
    kept: list[str] = []
    for separator, pair, name, is_one in zip(separators, pairs, names, are_credentials, strict=True):
        if not (is_one or name in also or (("AIza" in pair or "%" in pair) and is_api_key(pair))):
            value = _value_cleaned(pair) if "%" in pair else pair
            if value.count("=") > 1:
                value = _without_inner(value)
            kept.append(separator + value if kept else value)
    return "".join(kept)


def _known(pair: str) -> tuple[str, bool]:
    """The name of a parameter, and whether it is a credential."""
    name = pair.partition("=")[0]
    return _told(name) if len(name) <= _REMEMBERED_CHARACTERS else _told.__wrapped__(name)


@functools.lru_cache(maxsize=1024)
def _told(written: str) -> tuple[str, bool]:
    name = parameter_name(written)
    return name, is_credential(name)


def _value_cleaned(pair: str) -> str:
    name, equals, value = pair.partition("=") if "=" in pair else ("", "", pair)
    plain = decoded(value)
    cleaned = public_text(public_uri(plain))
    if cleaned == plain and "=" in plain and any(mark in plain for mark in "&?;#"):
        cleaned = _parameters(plain)
    return pair if cleaned == plain else name + equals + quote(cleaned, safe="")


def _without_inner(pair: str) -> str:
    """The pair up to a credential in its value."""
    inner = (one for one in _INNER.finditer(pair) if is_credential(parameter_name(one[1])))
    begin = next(inner, None)
    return pair if begin is None else pair[: begin.start()]


def _without_queries(text: str) -> str:
    if "=" not in text:
        return text

    def clean(found: re.Match[str]) -> str:
        name = parameter_name(found[2])
        if not found[3] or not (is_credential(name) or is_api_key(found[0])):
            return found[0]
        return f"{found[1]}{found[2]}="

    return _QUERY.sub(clean, text)
