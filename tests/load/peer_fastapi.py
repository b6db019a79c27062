"""The service that acknowledgement is compared with: FastAPI and SQLAlchemy doing the same durable work.

It checks the signature over the raw body, reads the batch, and inserts its messages into Frontdesk's own table `inbox`
(same columns, same indexes, duplicates ignored). The 200 comes after the commit. Install what it needs with
`pip install fastapi "uvicorn[standard]" "sqlalchemy[asyncio]" "psycopg[binary]"`.
"""

import hashlib
import hmac
import json
import os
from datetime import datetime, timezone

import psycopg
from fastapi import FastAPI, Request, Response
from sqlalchemy import Boolean, Column, DateTime, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import create_async_engine

SECRET = os.environ["PEER_APP_SECRET"].encode()
TEXTS = ("page_id", "psid", "channel", "kind", "dedupe_key", "mid")
INBOX = Table(
    "inbox", MetaData(), *(Column(name, Text) for name in TEXTS),
    Column("is_takeover", Boolean), Column("event_at", DateTime(timezone=True)), Column("payload", JSONB),
)
INSERT = insert(INBOX).on_conflict_do_nothing(index_elements=["dedupe_key"])


async def connect():
    return await psycopg.AsyncConnection.connect(os.environ["PEER_DATABASE_URL"])


engine = create_async_engine(
    "postgresql+psycopg://", async_creator=connect, pool_size=int(os.environ["PEER_CONNECTIONS"]), max_overflow=0
)
app = FastAPI()


def read(batch):
    for entry in batch["entry"]:
        for piece in entry["messaging"]:
            mid = piece["message"]["mid"]
            yield {
                "page_id": entry["id"], "psid": piece["sender"]["id"], "channel": "messaging", "kind": "message",
                "dedupe_key": f"{entry['id']}:{mid}", "mid": mid, "is_takeover": False,
                "event_at": datetime.fromtimestamp(piece["timestamp"] / 1000, timezone.utc), "payload": piece,
            }


@app.post("/meta/webhook")
async def webhook(request: Request) -> Response:
    body = await request.body()
    signature = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signature, request.headers.get("x-hub-signature-256", "")):
        return Response(status_code=403)
    async with engine.begin() as connection:
        await connection.execute(INSERT, list(read(json.loads(body))))
    return Response("EVENT_RECEIVED", media_type="text/plain")


@app.get("/healthz")
async def healthz() -> Response:
    return Response("ok")
