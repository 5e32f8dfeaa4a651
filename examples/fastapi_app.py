"""
A FastAPI application whose metrics, by prometheus-fastapi-instrumentator, are streamed.

    cd examples && METRICS=5000 uvicorn fastapi_app:app

Watch with C{metrics-tcp tail}.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_fastapi_instrumentator import Instrumentator

from txmetrics_tcp import TcpBuilder
from txmetrics_tcp.bridges.prometheus import stream


@asynccontextmanager
async def streaming(app: FastAPI) -> AsyncIterator[None]:
    # In each worker, since the master process answers no requests.
    builder = TcpBuilder().listen_address(os.environ.get("METRICS", "5000"))
    with builder.install_in_thread() as metrics:
        stream()
        print(f"Streaming metrics on {metrics.addresses[0]}", flush=True)
        yield


app = FastAPI(lifespan=streaming)
Instrumentator().instrument(app).expose(app)


@app.get("/hello/{name}")
async def hello(name: str) -> str:
    return f"Hello, {name}"
