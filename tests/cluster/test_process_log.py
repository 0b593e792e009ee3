"""What a process of ours writes to its log: its own words and those of libraries, without secrets."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, logging
from cluster.process import set_up_logging
from storage import redaction

set_up_logging("connection/asha-live")
set_up_logging("connection/asha-live")
redaction.note(["planted-secret"])
logging.getLogger("quarterdeck").info("ours: planted-secret")
logging.getLogger("uvicorn.error").error("theirs", exc_info=ValueError("token planted-secret"))
logging.getLogger("httpx").info("GET /?access_token=planted-secret")

async def main():
    async def fails():
        raise ValueError("header planted-secret")
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task

asyncio.run(main())
"""


def test_a_log_has_no_secret_whoever_wrote_it_and_each_line_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=180, check=True)
    said = done.stdout + done.stderr
    assert "planted" not in said
    assert said.count("INFO connection/asha-live ours: [secret]") == 1
    assert said.count("ValueError: token [secret]") == 1
    assert said.count("Task exception was never retrieved") == 1
    assert "ValueError: header [secret]" in said
    assert "access_token" not in said, "what libraries tell of each request is not wanted"
