"""The service that customers talk to. It calls no model, and knows customers by rules.toml alone."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response

import tallystick.auto  # noqa: F401


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=os.environ["ANSWERS_URL"]) as app.state.answers:
        yield


app = FastAPI(lifespan=connected)


@app.post("/v1/{what}")
async def ask(what: str, request: Request) -> Response:
    answer = await app.state.answers.post(f"/{what}", json=await request.json())
    return Response(answer.content, answer.status_code, media_type="application/json")
