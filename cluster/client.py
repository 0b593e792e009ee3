"""A client of the REST API, for the command line and the demo.  Problems come out as our errors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import httpx

from trading.errors import BadInput, NeedsOperator, NotReady, Refused, TradeError, Unreachable

_RETRIES_S = 20.0


class ApiClient:
    """Calls ``/v1`` with a key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(30.0, connect=5.0)
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET; raises `TradeError`."""
        return self._call("GET", path, params=_given(query))

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

    def upload(self, path: str, data: bytes, seconds: float, **query: Any) -> Any:
        """POST a file, with patience of its own; raises `TradeError`."""
        headers = {"Content-Type": "application/octet-stream"}
        timeout = httpx.Timeout(seconds, connect=5.0)
        return self._call("POST", path, content=data, headers=headers, params=_given(query), timeout=timeout)

    def download(self, path: str, into: BinaryIO, **query: Any) -> int:
        """GET a file of any length into ``into``; how many bytes came.  Raises `TradeError`, `Unreachable` too where
        the answer broke off: what was written then is not all."""
        taken = 0
        with self._told(), self._http.stream("GET", f"/v1{path}", params=_given(query)) as answer:
            if not answer.is_success:
                answer.read()
                raise _problem(answer)
            for part in answer.iter_bytes():
                into.write(part)
                taken += len(part)
        return taken

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what httpx raises into our errors."""
        try:
            yield
        except httpx.ConnectError as error:
            raise NeedsOperator(f"no API answers at {self.url} ({error})", "start it with `quarterdeck up`") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise BadInput("--url", f"{self.url!r} is no address: write http://host:port") from error
        except httpx.HTTPError as error:
            raise Unreachable(self.url, f"{type(error).__name__} {error}") from error

    def _call(self, method: str, path: str, **more: Any) -> Any:
        """One call.  What is not ready is asked again for a while: nothing was done, so that is safe."""
        deadline = time.monotonic() + _RETRIES_S
        while True:
            with self._told():
                answer = self._http.request(method, f"/v1{path}", **more)
            if answer.status_code == 503 and time.monotonic() < deadline:
                time.sleep(min(1.0, float(answer.headers.get("Retry-After", "1"))))
                continue
            if answer.is_success:
                return answer.json() if answer.content else None
            raise _problem(answer)


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


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
