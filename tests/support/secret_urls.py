"""URLs and texts with known secrets, which must not leave the process in any output."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

PARAMETERS = (
    "token", "access_token", "accessToken", "API_KEY", "sig", "Signature", "X-Amz-Signature", "X-Amz-Credential",
    "x-goog-signature", "GoogleAccessId", "password", "jsessionid", "client-secret", "X%2DAmz%2DSignature", "%74oken",
    "%2574oken", "s%69g", "auth.token", "hmac",
)  # fmt: skip

# Texts around a URL; `{}` is the URL.
CONTEXTS = (
    "{}", " {}", "see {} there", '"{}"', "'{}'", "1,{},cat", "a;{};b", "({})", "<{}>", "[{}]", '{{"url": "{}"}}',
    "url={}", "failed: {}: 403 Forbidden", "`{}`", "\t{}\n", "line one\nGET {} HTTP/1.1\nline three", "x|{}|y",
    "https://plain.example.org/a.jpg {}", "https://proxy.example.org/{}",
)  # fmt: skip


def urls(secret: str, base: str = "host.example.org/dir/a.jpg") -> Iterator[str]:
    """URLs of every kind with a secret; ``base`` is host and path."""
    host, _, path = base.partition("/")
    for scheme in ("https", "HTTP", "s3", "gs", "ftp", "sftp", "abfs", "hdfs", "git+ssh", "1https"):
        yield f"{scheme}://user:{secret}@{base}"
    yield f"https://{secret}@{base}"
    yield f"https://user:{secret}@{host}:8080/{path}"
    yield f"https://us%40er:{secret}@{base}"
    yield f"https://user:p@{secret}@{base}"
    yield f"https://user:p/{secret}@{base}"
    yield f"https://user:{quote('@' + secret + '/')}@{base}"
    # For servers that decode first, read a backslash as a slash, or read full-width characters as ASCII.
    yield f"https://user%3A{secret}%40{base}"
    yield f"https://user:{secret}%2540{base}"
    yield f"https://user\\:{secret}@{base}"
    yield f"https://user:{secret}\uff20{base}"
    yield f"https:/user:{secret}@{base}"
    yield f"http:user:{secret}@{base}"
    yield f"https://{base}?user[token]={secret}"
    yield f"https://{base}?\u200btok\u200ben={secret}"
    yield f"https://{base}?\uff54oken={secret}"
    yield f"//user:{secret}@{base}"
    yield f"user:{secret}@{base}"
    yield f"https:\\/\\/user:{secret}@{base}"
    for name in PARAMETERS:
        yield f"https://{base}?{name}={secret}"
        yield f"https://{base}?w=1&{name}={secret}&h=2"
        yield f"https://{base}?w=1;{name}={secret}"
        yield f"https://{base}#{name}={secret}"
        yield f"https://{base};{name}={secret}"
        yield f"https://{host};{name}={secret}/{path}?w=1"
    yield f"https://{base}?w=1#/route?token={secret}"
    yield f"https://{base}#?sig={secret}"
    yield f"https://{base}?sv=2022-11-02&sr=b&sp={secret}&sig={secret}"
    yield f"s3://bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={secret}"
    yield f"gs://bucket/key?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature={secret}"
    inner = f"https://user:{secret}@inner.example.org/a.jpg?token={secret}"
    yield f"https://{base}?url={quote(inner, safe='')}&w=1"
    yield f"https://{base}?url={quote(quote(inner, safe=''), safe='')}"
    yield f"https://{base}?url={inner}"
    yield f"https://{host}/fetch/{quote(inner, safe='')}"
    yield f"https://{host}/fetch/{inner}"
    yield f"https://{base}?next={quote('/a?x=1&token=' + secret, safe='')}"
