"""Flow runs that a killed `edgemill up` has left in the state RUNNING, though nothing runs them any more."""

from __future__ import annotations

import httpx

_ACTIVE = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}, "deployment_id": {"is_null_": False}}
_PAGE = 200
_TIMEOUT_S = 30.0


def end_left_runs(api: str) -> int:
    """Mark them as crashed, so that they do not hold the work pool's only slot for ever.

    To be called before the worker starts: then no flow run of a deployment can be alive. Runs of
    the command line belong to no deployment and are left alone.

    Args:
        api: address of the Prefect server's API.

    Returns:
        How many there were.

    Raises:
        httpx.HTTPError: the server does not answer as it should.
    """
    ended = 0
    with httpx.Client(base_url=api, timeout=_TIMEOUT_S) as client:
        while True:
            page = client.post("/flow_runs/filter", json={"flow_runs": _ACTIVE, "limit": _PAGE})
            runs = page.raise_for_status().json()
            for run in runs:
                crashed = {"type": "CRASHED", "name": "Crashed", "message": "its process was killed"}
                answer = client.post(f"/flow_runs/{run['id']}/set_state", json={"state": crashed, "force": True})
                answer.raise_for_status()
            ended += len(runs)
            if len(runs) < _PAGE:
                return ended
