"""The parameters of a URL that are credentials: one table, for all text that leaves the process and for identity.

Sources of the names: Google Cloud Storage's signed URLs (V4 ``X-Goog-*``; V2 ``GoogleAccessId``, ``Expires``,
``Signature``), AWS Signature Version 4 (``X-Amz-*``) and 2 (``AWSAccessKeyId``, ``Expires``, ``Signature``),
CloudFront (``Policy``, ``Expires``, ``Signature``, ``Key-Pair-Id``), Azure's shared access signatures (``sv`` …
``sig``), Alibaba OSS (``x-oss-*``, ``OSSAccessKeyId``), Tencent COS (``q-*``) and CDN (``txSecret``), Akamai
(``hdnea``), nginx's ``secure_link`` (``md5`` with ``expires``), Dropbox (``rlkey``), OAuth, the session ids of Java
and PHP, and common names of tokens and keys.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from urllib.parse import unquote_plus

# A parameter with one of these names is always a credential. All names are in lower case.
NAMES = frozenset(
    {
        "access_key",
        "access_key_id",
        "access_token",
        "access_token_secret",
        "accesskey",
        "api-key",
        "api_key",
        "api_secret",
        "api_token",
        "apikey",
        "app_secret",
        "application_key",
        "auth",
        "auth_key",
        "auth_token",
        "authkey",
        "authorization",
        "authtoken",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "awsaccesskeyid",
        "bearer",
        "client_assertion",
        "client_secret",
        "credential",
        "credentials",
        "creds",
        "csrf",
        "csrf_token",
        "expires",
        "googleaccessid",
        "hdnea",
        "hdntl",
        "hdnts",
        "hmac",
        "id_token",
        "jsessionid",
        "jwt",
        "key-pair-id",
        "oauth_signature",
        "oauth_token",
        "ossaccesskeyid",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "passwort",
        "phpsessid",
        "private-key",
        "private_key",
        "private_token",
        "pwd",
        "q-ak",
        "q-header-list",
        "q-key-time",
        "q-sign-algorithm",
        "q-sign-time",
        "q-signature",
        "q-url-param-list",
        "refresh_token",
        "rlkey",
        "sas",
        "sas_token",
        "secret",
        "secret_access_key",
        "secret_key",
        "secret_token",
        "security-token",
        "session_id",
        "session_key",
        "session_token",
        "sessionid",
        "sessiontoken",
        "sig",
        "sign",
        "signature",
        "ssh_key",
        "storage_key",
        "subscription-key",
        "subscription_key",
        "token",
        "txsecret",
        "txtime",
        "user_token",
        "verify_token",
        "wssecret",
        "wstime",
        "x-access-token",
        "x-api-key",
        "x-auth-token",
        "x-csrf-token",
        "x-signature",
        "x-token",
        "xsrf_token",
    }
)
# All parameters with these prefixes belong to a signature.
PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
# Short or common names, which are credentials only beside the parameter that signs them. Without it, they may well
# distinguish one image from another.
BESIDE: dict[str, frozenset[str]] = {
    # Azure's shared access signatures: service, account and user delegation.
    "sig": frozenset(
        {
            "sv",
            "se",
            "sp",
            "sr",
            "st",
            "ss",
            "si",
            "sip",
            "spr",
            "srt",
            "skoid",
            "sktid",
            "skt",
            "ske",
            "sks",
            "skv",
            "saoid",
            "suoid",
            "scid",
            "sdd",
            "ses",
            "sduoid",
            "skdutid",
        }
    ),
    "expires": frozenset({"md5"}),
    "signature": frozenset({"policy", "algorithm", "keyname", "urlprefix", "key-pair-id"}),
}

# Names of credentials that are never part of a file's own name: such an object or file was saved from a signed URL.
UNMISTAKABLE = ("awsaccesskeyid", "googleaccessid", "ossaccesskeyid")

# Endings of file names that are no top-level domains, for a regular expression.
FILE_ENDINGS = (
    "jpe?g|jpe|jfif|jp2|jxl|png|apng|gif|webp|tiff?|bmp|ico|heic|heif|avif|qoi|dds|tga|ppm|pgm|pnm|svg|dng"
    "|txt|csv|tsv|jsonl?|parquet|tfrecord|tar|t?gz|zst"
)

_DECODINGS = 3
_FILLERS = str.maketrans("", "", "-_. ")
_SQUEEZED = frozenset(name.translate(_FILLERS) for name in NAMES)
# Names of several words, by their last. A token may also identify an image (`sample_token`), so its first word counts.
_LAST_WORDS = re.compile(
    r"(?:password|passwd|passphrase|secret|apikey|accesskey|secretkey|privatekey|signature"
    r"|(?:access|api|app|auth|authentication|authenticity|authorization|bcdn|bearer|cache|cdn|client|csrf|device"
    r"|download|gitlab|github|id|jwt|login|middleware|ms|private|push|refresh|sas|secret|security|session|share|signed"
    r"|sso|temp|upload|url|user|verify|xsrf)token)\Z"
)
_PATH_WORDS = ("token", "signature", "hmac", "hdnts", "hdnea", "hdntl", "password", "api_key", "apikey")
_LAST_PARTS = ("-auth", "_auth", "-jwt", "_jwt", "-sig", "_sig", "-hmac", "_hmac")
# A Google API key, under any name of a parameter: https://cloud.google.com/docs/authentication/api-keys
_API_KEY = re.compile(r"AIza[0-9A-Za-z_-]{35}")


def decoded(text: str) -> str:
    """The text without its percent-encoding, which may be applied more than once."""
    for _ in range(_DECODINGS):
        if "%" not in text and "+" not in text:
            return text
        text = unquote_plus(text)
    return text


def parameter_name(pair: str) -> str:
    """The name of ``name=value``, normalized as in the table."""
    name = decoded(pair.partition("=")[0]).partition("=")[0]
    if not (name.isascii() and name.isprintable()):
        # Some servers read wide letters as letters, and others drop invisible characters.
        name = "".join(one for one in unicodedata.normalize("NFKC", name) if one.isprintable())
    name = name.strip().lower().removesuffix("[]")
    if not name.endswith("]"):
        return name
    # PHP and Rails nest names: user[token], token[0].
    parts = [part.removesuffix("]") for part in name.split("[")]
    return next(filter(is_credential, parts), parts[-1])


def beside(names: Collection[str]) -> frozenset[str]:
    """The names that are credentials only because these parameters are present."""
    return frozenset().union(*(others for signer, others in BESIDE.items() if signer in names))


def is_credential(name: str) -> bool:
    """Whether a parameter is a credential without regard to the others.

    Args:
      name: from ``parameter_name``. ``-``, ``_`` and ``.`` in it are ignored.
    """
    if name in NAMES or name.startswith(PREFIXES) or name.endswith(_LAST_PARTS):
        return True
    squeezed = name.translate(_FILLERS)
    return squeezed in _SQUEEZED or _LAST_WORDS.search(squeezed) is not None


def names_path_part(name: str) -> bool:
    """Whether ``name=value`` as a part of a path is a credential; ``sign=stop`` may be a partition of a table."""
    return is_credential(name) and (name.endswith(_PATH_WORDS) or name.startswith(PREFIXES))


def is_api_key(pair: str) -> bool:
    """Whether the value of ``name=value`` has the form of a key."""
    return _API_KEY.search(decoded(pair.partition("=")[2])) is not None
