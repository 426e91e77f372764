"""Authentication: JWTs (HS256) for DELETE and reference analyses, a token for all calls, and secrets of sessions."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

import jwt

from uploader_server.errors import Refusal

SESSION_HEADER = "X-Session-Secret"
SECRET = re.compile(r"[!-~]{22,200}")


def issue_token(secret: str, ttl: float = 30 * 24 * 3600.0) -> str:
    """Return a JWT signed with `secret` that is valid for `ttl` seconds."""
    now = int(time.time())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)  # a short secret is the operator's choice
        return jwt.encode({"sub": "uploader", "iat": now, "exp": now + int(ttl)}, secret, algorithm="HS256")


def bearer(authorization: str | None) -> str:
    """Return the token of `Bearer <token>`, or an empty string."""
    kind, _, token = (authorization or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def same_token(given: str, expected: str) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def check_token(authorization: str | None, secret: str | None, auth_token: str | None = None) -> None:
    """Accept `Bearer <auth_token>` if one is configured, and with a secret `Bearer <JWT>`.

    Raises Refusal: UNAUTHORIZED without a token, INVALID_TOKEN with a bad one.
    """
    token = bearer(authorization)
    if not token:
        raise Refusal("UNAUTHORIZED", "Send a token: Authorization: Bearer …")
    if auth_token is not None and same_token(token, auth_token):
        return
    if secret is None:
        raise Refusal("INVALID_TOKEN", "The token is invalid")
    try:
        _decode(token, secret)
    except jwt.InvalidTokenError as error:
        raise Refusal("INVALID_TOKEN", "The token is invalid or has expired", details=str(error)) from error


def owner_of(authorization: str | None, secret: str) -> str:
    """Return the subject of a JWT signed with `secret`, even an expired one; empty for any other token.

    It identifies the owner of an upload and grants no access.
    """
    try:
        return str(_decode(bearer(authorization), secret, verify_exp=False).get("sub", ""))
    except jwt.InvalidTokenError:
        return ""


def hashed_secret(headers: Mapping[str, str]) -> bytes:
    """Return the SHA-256 of X-Session-Secret; empty without the header. Raises Refusal if it is no secret."""
    secret = headers.get(SESSION_HEADER)
    if secret is None:
        return b""
    if SECRET.fullmatch(secret) is None:
        raise Refusal("INVALID_HEADER", f"{SESSION_HEADER} must be 22 to 200 visible ASCII characters")
    return hashlib.sha256(secret.encode()).digest()


def same_secret(headers: Mapping[str, str], expected: bytes) -> bool:
    """Compare X-Session-Secret with the hash of a secret in constant time."""
    given = headers.get(SESSION_HEADER, "").encode("utf-8", "surrogatepass")
    return hmac.compare_digest(hashlib.sha256(given).digest(), expected)


def _decode(token: str, secret: str, *, verify_exp: bool = True) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        return jwt.decode(token, secret, algorithms=["HS256"], options={"verify_exp": verify_exp})
