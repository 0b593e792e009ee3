"""A client of the REST API, for the command line and the demo.  Problems come out as our errors."""

from __future__ import annotations

import time
from typing import Any

import httpx

from trading.errors import BadInput, NeedsOperator, NotReady, Refused, TradeError, Unreachable

_RETRIES_S = 20.0


class ApiClient:
    """Calls ``/v1`` with a key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(30.0, connect=5.0)
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET; raises `TradeError`."""
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Any = None) -> Any:
        """POST; raises `TradeError`."""
        return self._call("POST", path, json=body)

    def put(self, path: str, body: Any = None) -> Any:
        """PUT; raises `TradeError`."""
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: Any = None) -> Any:
        """PATCH; raises `TradeError`."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE; raises `TradeError`."""
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, **more: Any) -> Any:
        """One call.  What is not ready is asked again for a while: nothing was done, so that is safe."""
        deadline = time.monotonic() + _RETRIES_S
        while True:
            try:
                answer = self._http.request(method, f"/v1{path}", **more)
            except httpx.ConnectError as error:
                raise NeedsOperator(
                    f"no API answers at {self.url} ({error})", "start it with `quarterdeck up`"
                ) from error
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise BadInput("--url", f"{self.url!r} is no address: write http://host:port") from error
            except httpx.HTTPError as error:
                raise Unreachable(self.url, f"{type(error).__name__} {error}") from error
            if answer.status_code == 503 and time.monotonic() < deadline:
                time.sleep(min(1.0, float(answer.headers.get("Retry-After", "1"))))
                continue
            if answer.is_success:
                return answer.json() if answer.content else None
            raise _problem(answer)


def _problem(answer: httpx.Response) -> TradeError:
    try:
        problem = answer.json()
    except ValueError:
        return TradeError("http", f"HTTP {answer.status_code}: {answer.text[:200]}")
    detail = str(problem.get("detail") or problem.get("title") or answer.status_code)
    field = problem.get("field")
    text = f"{field}: {detail}" if field and not detail.startswith(str(field)) else detail
    if answer.status_code == 503:
        return NotReady(text)
    if answer.status_code == 422 and problem.get("code") == "bad_input" and field:
        return BadInput(str(field), detail.removeprefix(f"{field}: "))
    if answer.status_code == 401:
        return NeedsOperator(text, "give a key with --api-key or QUARTERDECK_API_KEY")
    return Refused(str(problem.get("code", "refused")), text)
