"""The parameters of a URL that are credentials: one table, for all texts that leave the process and for identity.

Sources of the names: Google Cloud Storage's signed URLs (V4 ``X-Goog-*``; V2 ``GoogleAccessId``, ``Expires``,
``Signature``), AWS Signature Version 4 (``X-Amz-*``) and 2 (``AWSAccessKeyId``, ``Expires``, ``Signature``), CloudFront
(``Policy``, ``Expires``, ``Signature``, ``Key-Pair-Id``), Azure's shared access signatures (``sv`` … ``sig``),
Alibaba OSS (``x-oss-*``, ``OSSAccessKeyId``), Tencent COS (``q-*``), and names that tokens and keys commonly have.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

# A parameter of one of these names is a credential wherever it stands. All names are in lower case.
NAMES = frozenset(
    {
        "access_key",
        "access_token",
        "accesskey",
        "api-key",
        "api_key",
        "apikey",
        "auth",
        "auth_key",
        "auth_token",
        "authkey",
        "authorization",
        "authtoken",
        "awsaccesskeyid",
        "bearer",
        "client_secret",
        "credential",
        "expires",
        "googleaccessid",
        "hdnea",
        "hdnts",
        "hmac",
        "id_token",
        "jwt",
        "key-pair-id",
        "ossaccesskeyid",
        "passwd",
        "password",
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
        "sas",
        "secret",
        "security-token",
        "session_token",
        "sessiontoken",
        "sig",
        "sign",
        "signature",
        "subscription-key",
        "token",
        "verify_token",
        "x-api-key",
    }
)
# All parameters whose names begin so belong to a signature.
PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
# Short or common names, which are credentials only beside the parameter that signs them: without it they may well
# tell one image from another.
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
    "signature": frozenset({"policy", "algorithm", "keyname", "urlprefix", "key-pair-id"}),
}

_PAIRS = re.compile("([&;])")
# A Google API key, whatever its parameter is called: https://cloud.google.com/docs/authentication/api-keys
_API_KEY = re.compile(r"AIza[0-9A-Za-z_-]{35}")


def without_credentials(query: str) -> str:
    """A query, or a fragment of the same form, without its parameters that are credentials.

    The other parameters stay verbatim and in their order. Names are compared percent-decoded, in any case of letters;
    ``&`` and ``;`` part the parameters.
    """
    pieces = _PAIRS.split(query)
    pairs, separators = pieces[::2], ["", *pieces[1::2]]
    names = [unquote_plus(pair.partition("=")[0]).strip().lower() for pair in pairs]
    there = set(names)
    beside = frozenset().union(*(others for signer, others in BESIDE.items() if signer in there))
    kept = [
        (separator, pair)
        for separator, pair, name in zip(separators, pairs, names, strict=True)
        if not _is_credential(name, pair, beside)
    ]
    return "".join(pair if place == 0 else separator + pair for place, (separator, pair) in enumerate(kept))


def _is_credential(name: str, pair: str, beside: frozenset[str]) -> bool:
    return (
        name in NAMES
        or name.startswith(PREFIXES)
        or name in beside
        or _API_KEY.fullmatch(unquote_plus(pair.partition("=")[2])) is not None
    )
