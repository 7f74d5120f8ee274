"""Hostile clients of the chaos run: clients that do not read their responses, and login storms.

Each runs on one thread until its event is set. Connections come from several loopback addresses, because a server may limit
the connections of one address.
"""

import asyncio
import json
import socket
import time

ADDRESSES = [f"127.0.0.{n}" for n in range(2, 10)]
SILENT_CONNECTIONS = 200
STORM_CONNECTIONS = 800


def do_not_read(port, paths, ended):
    """Requests large responses over many connections, one path per connection, and reads nothing until `ended` is set."""
    connections = []
    for number in range(SILENT_CONNECTIONS):
        connection = socket.socket()
        connections.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        try:
            connection.bind((ADDRESSES[number % len(ADDRESSES)], 0))
            connection.connect(("127.0.0.1", port))
            connection.sendall(f"GET {paths[number % len(paths)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        except OSError:
            # A server may refuse or close connections of such clients.
            continue
        if ended.is_set():
            break
    ended.wait()
    for connection in connections:
        connection.close()


def storm(port, accounts, ended, record):
    """Logs in over many connections until `ended` is set; calls `record(status, seconds)` for each response.

    `accounts` is a list of pairs: address and password.
    """
    asyncio.run(_storm(port, accounts, ended, record))


async def _storm(port, accounts, ended, record):
    clients = [
        asyncio.create_task(_log_in(port, ADDRESSES[n % len(ADDRESSES)], accounts[n % len(accounts)], record))
        for n in range(STORM_CONNECTIONS)
    ]
    while not ended.is_set():
        await asyncio.sleep(0.1)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


async def _log_in(port, address, account, record):
    body = json.dumps({"email": account[0], "password": account[1]}).encode()
    request = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            while True:
                started = time.monotonic()
                writer.write(request)
                status = await _response(reader)
                record(status, time.monotonic() - started)
                if status != 200:
                    await asyncio.sleep(0.5)
        except (OSError, EOFError, ValueError):
            # A server may close connections over its limit.
            await asyncio.sleep(0.5)
        finally:
            if writer:
                writer.close()


async def _response(reader):
    """Reads a response and returns its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])
