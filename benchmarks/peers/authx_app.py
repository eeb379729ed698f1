"""authx as the first steps of its documentation set it up. It has no users: its login compares two strings.

`python authx_app.py PORT`, in a separate environment.
"""

import sys

import uvicorn
from authx import AuthX, AuthXConfig, TokenPayload
from fastapi import Depends, FastAPI, HTTPException

app = FastAPI()
auth = AuthX(
    config=AuthXConfig(
        JWT_SECRET_KEY="a secret of the benchmarks, with more than 32 bytes", JWT_TOKEN_LOCATION=["headers"]
    )
)
auth.handle_errors(app)


@app.post("/login")
def login(username: str, password: str):
    if username == "test" and password == "test":
        return {"access_token": auth.create_access_token(uid=username)}
    raise HTTPException(401, detail="Invalid credentials")


@app.get("/protected")
async def protected(payload: TokenPayload = Depends(auth.access_token_required)):
    return {"data": "Protected data", "user_id": payload.sub, "session_id": payload.jti}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
