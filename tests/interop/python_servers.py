"""tus servers of PyPI, with their default settings: `python python_servers.py NAME DIRECTORY PORT` listens at /files.

The script runs in an environment of its own, with the packages of `requirements.txt`.
"""

from __future__ import annotations

import sys

import uvicorn


def asgi_tus(directory: str) -> object:
    from asgi_tus import ASGITusApp, FileStorage

    return ASGITusApp(FileStorage(directory))


def litestar_tus(directory: str) -> object:
    from litestar import Litestar
    from litestar_tus import TUSConfig, TUSPlugin

    return Litestar(plugins=[TUSPlugin(TUSConfig(upload_dir=directory))])


def tuspyserver(directory: str) -> object:
    from fastapi import FastAPI
    from tuspyserver import create_tus_router

    app = FastAPI()
    app.include_router(create_tus_router(prefix="files", files_dir=directory))
    return app


name, directory, port = sys.argv[1:]
uvicorn.run(globals()[name](directory), host="127.0.0.1", port=int(port), log_level="error")
