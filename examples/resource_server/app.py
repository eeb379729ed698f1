"""A second service, which verifies the access tokens of sessionapi offline.

    ISSUER=http://localhost:8000 .venv/bin/uvicorn --app-dir examples/resource_server app:app --port 8001

With SERVICE_TOKEN (`sessionapi service-tokens add orders`) it refuses the tokens of an ended session within a
second. Without one, it accepts them until they expire, a minute at most.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from sessionapi.verifier import AsyncVerifier, Claims
from sessionapi.verifier.fastapi import Bearer

issuer = os.environ.get("ISSUER", "http://localhost:8000")
verifier = AsyncVerifier(issuer, service_token=os.environ.get("SERVICE_TOKEN"))
User = Annotated[Claims, Depends(Bearer(verifier))]
app = FastAPI(title="Orders")


@app.get("/orders")
async def orders(user: User) -> dict[str, object]:
    """Return the orders of the user of the access token."""
    return {"user": user.user_id, "orders": []}
