"""The baseline: the same routes and bodies with FastAPI and nothing else.

Run it as a file, in any environment: `python bare.py PORT`. It imports nothing from this project, so that the
peers' environments can run it too.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

PROTECTED = {
    "data": "Protected data",
    "user_id": "user_01kb0000000000000000000000",
    "session_id": "sess_01kb0000000000000000000000",
}
REFRESHED = {
    "access_token": "e" * 510,
    "token_type": "Bearer",
    "expires_in": 60,
    "refresh_token": "sr_" + "A" * 116,
    "session_id": PROTECTED["session_id"],
    "generation": 0,
    "session_expires_in": 604_800,
    "user": {"id": PROTECTED["user_id"], "username": "u" * 33, "email": None},
}
"""As long as the body that the service returns."""
app = FastAPI(openapi_url=None)


class RefreshIn(BaseModel):
    refresh_token: str | None = None
    active: bool = True


@app.get("/protected")
async def protected() -> dict[str, str]:
    return PROTECTED


@app.post("/refresh")
async def refresh(_body: RefreshIn) -> dict[str, Any]:
    return REFRESHED


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
