"""An app behind a real socket, served by uvicorn in a thread of the test."""

import contextlib
import socket
import threading

import uvicorn


@contextlib.contextmanager
def running(app):
    """Run an app on a free port of the loopback interface; yield its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
