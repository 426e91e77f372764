"""Who may call: the JSON Web Tokens (HS256) that DELETE and the analysis ask for, and the one bearer token for all."""

from __future__ import annotations

import hmac
import time
import warnings

import jwt

from uploader_server.http.errors import ApiError


def issue_token(secret: str, ttl: float = 30 * 24 * 3600.0) -> str:
    """A token that a server with this secret accepts for `ttl` seconds."""
    now = int(time.time())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)  # a short secret is the operator's choice
        return jwt.encode({"sub": "uploader", "iat": now, "exp": now + int(ttl)}, secret, algorithm="HS256")


def bearer(authorization: str | None) -> str:
    """The token of `Bearer <token>`; empty where there is none."""
    kind, _, token = (authorization or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def same_token(given: str, expected: str) -> bool:
    """Whether this is the token, in a time that says nothing about where it differs."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def check_access(authorization: str | None, auth_token: str) -> None:
    """Accept `Bearer <auth_token>`. Raises ApiError 401 as `check_token` does."""
    token = bearer(authorization)
    if not token:
        raise _unauthorized()
    if not same_token(token, auth_token):
        raise ApiError(401, "INVALID_TOKEN", "The token is invalid")


def check_token(authorization: str | None, secret: str, auth_token: str | None = None) -> None:
    """Accept `Bearer <JWT>`, and `Bearer <auth_token>` where one is set.

    Raises ApiError 401: UNAUTHORIZED without a token, INVALID_TOKEN with a bad one.
    """
    token = bearer(authorization)
    if not token:
        raise _unauthorized()
    if auth_token is not None and same_token(token, auth_token):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            jwt.decode(token, secret, algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        raise ApiError(401, "INVALID_TOKEN", "The token is invalid or has expired", details=str(error)) from error


def owner_of(authorization: str | None, secret: str) -> str:
    """Whose request this is: the subject of a token that was signed here, expired or not; else empty, like nobody's.

    It tells clients apart and permits nothing.
    """
    token = bearer(authorization)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            claims = jwt.decode(token, secret, algorithms=["HS256"], options={"verify_exp": False})
    except jwt.InvalidTokenError:
        return ""
    return str(claims.get("sub", ""))


def _unauthorized() -> ApiError:
    return ApiError(401, "UNAUTHORIZED", "Send a token: Authorization: Bearer …")
