"""A light HTTP/1.1 client for load: one connection, one request at a time. Knows Content-Length and nothing else."""

import asyncio
import json
from typing import Any


class Connection:
    """One kept-alive connection; `ask` opens it anew when the server closed it."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body of the answer.

        Raises:
            OSError, asyncio.IncompleteReadError: the server hung up.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        head = (f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n")  # fmt: skip
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            status, *headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next(int(h.split(b":")[1]) for h in headers if h.startswith(b"content-length:"))
            answer = await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        if b"connection: close" in headers:
            self.close()
        return int(status.split()[1]), answer

    async def post(self, path: str, value: object) -> tuple[int, Any]:
        """Send a value as JSON; return status and the value of the answer."""
        status, answer = await self.ask("POST", path, json.dumps(value).encode())
        return status, json.loads(answer)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
