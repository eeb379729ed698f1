"""Health checks and metrics."""

from fastapi import APIRouter, Response

from sessionapi.errors import NotFound
from sessionapi.web.dependencies import ContainerDep
from sessionapi.web.openapi import STORE, answers
from sessionapi.web.schemas import StatusOut

router = APIRouter(tags=["service"])


@router.get(
    "/healthz", operation_id="healthz", summary="Runs, and can verify tokens", responses=answers(*STORE)
)
async def healthz(container: ContainerDep) -> StatusOut:
    """Return 200 while the process can verify access tokens, with or without the database."""
    container.check_healthy()
    return StatusOut(status="ok")


@router.get("/readyz", operation_id="readyz", summary="Can serve everything", responses=answers(*STORE))
async def readyz(container: ContainerDep) -> StatusOut:
    """Return 200 while all requests can be served, else 503 with the reason, for a load balancer."""
    await container.check_ready()
    return StatusOut(status="ready")


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics, if the setting METRICS is on",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **answers("not_found")},
)
async def metrics(container: ContainerDep) -> Response:
    """Return the counters of this process in the text format of Prometheus."""
    if not container.settings.metrics:
        raise NotFound
    return Response(container.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
