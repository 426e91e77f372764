"""The JSON Web Tokens (HS256) that DELETE asks for."""

from __future__ import annotations

import time
import warnings

import jwt

from server_stub.wire import ApiError


def issue_token(secret: str, ttl: float = 30 * 24 * 3600.0) -> str:
    """A token that a server with this secret accepts for `ttl` seconds."""
    now = int(time.time())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)  # a short secret is the operator's choice
        return jwt.encode({"sub": "uploader", "iat": now, "exp": now + int(ttl)}, secret, algorithm="HS256")


def check_token(authorization: str | None, secret: str) -> None:
    """Accept `Bearer <JWT>`. Raises ApiError 401: UNAUTHORIZED without a token, INVALID_TOKEN with a bad one."""
    kind, _, token = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise ApiError(401, "UNAUTHORIZED", "Send a token: Authorization: Bearer …")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            jwt.decode(token.strip(), secret, algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        raise ApiError(401, "INVALID_TOKEN", "The token is invalid or has expired", details=str(error)) from error


def owner_of(authorization: str | None, secret: str) -> str:
    """Whose request this is: the subject of a token that was signed here, expired or not; else empty, like nobody's.

    It tells clients apart and permits nothing.
    """
    kind, _, token = (authorization or "").partition(" ")
    if kind.lower() != "bearer":
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            claims = jwt.decode(token.strip(), secret, algorithms=["HS256"], options={"verify_exp": False})
    except jwt.InvalidTokenError:
        return ""
    return str(claims.get("sub", ""))
