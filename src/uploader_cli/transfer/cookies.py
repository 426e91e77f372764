"""Cookies of answers, by which load balancers find the server of a client again; imported at the first of them."""

from __future__ import annotations

import warnings
from email.message import Message
from http.cookiejar import CookieJar
from types import SimpleNamespace
from typing import Any
from urllib.request import Request

# A jar shows the traceback of a cookie that it can't read; so do those that `requests` makes for each answer.
warnings.filterwarnings("ignore", "http.cookiejar bug", UserWarning)


class Cookies(CookieJar):
    """A jar that leaves out a cookie that it can't read. Its base class then gives up all cookies of an answer."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep the cookies of an answer. `response.info()` has its headers."""
        for cookie in response.info().get_all("Set-Cookie") or ():
            one = Message()
            one["Set-Cookie"] = cookie
            super().extract_cookies(SimpleNamespace(info=lambda one=one: one), request)  # type: ignore[arg-type]

    def keep(self, url: str, fields: Any) -> None:
        """Keep the cookies of an answer from `url` with these headers."""
        self.extract_cookies(SimpleNamespace(info=lambda: fields), Request(url))  # noqa: S310 - nothing is opened

    def header(self, url: str) -> dict[str, str]:
        """Return the header for a request to `url`; empty without cookies for it."""
        asked = Request(url)  # noqa: S310 - nothing is opened
        self.add_cookie_header(asked)
        return dict(asked.unredirected_hdrs)
