"""What streams cost beside an upstream of this script's own: the time to the first data of one caller, and the
gate's memory while many slow streams are open.

Usage: streams.py FOLDER        a folder as setup.sh makes it: castra.toml (gate at 127.0.0.1:19044) and token

CASTRA    the program
SLOW      slow streams at once (default 1,000)
CALLS     calls for the time to the first data (default 2,000)
"""

import asyncio
import json
import os
import sys
import time

UPSTREAM, GATE = 19105, 19044
EVENTS, PAUSE = 25, 0.5  # of a slow stream: one event each half second, as a model that takes its time
SLOW = int(os.environ.get("SLOW", "1000"))
CALLS = int(os.environ.get("CALLS", "2000"))


def chunk(body: dict) -> bytes:
    event = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def part(delta: dict, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return chunk({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


END = part({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request of a connection with a stream, slow if the prompt says so."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            slow = b"slowly" in await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(EVENTS):
                writer.write(part({"content": f" token{number}"}))
                if slow:
                    await writer.drain()
                    await asyncio.sleep(PAUSE)
            writer.write(END)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def request(port: int, token: bytes, prompt: str) -> bytes:
    body = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    text = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (port, token, len(text), text)
    )


async def first_data(port: int, token: bytes) -> list[float]:
    """Microseconds from the request to the first event, sorted; one caller, one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        writer.write(request(port, token, "hi"))
        seen, first = b"", None
        while not seen.endswith(b"0\r\n\r\n"):
            piece = await reader.read(65536)
            if not piece:
                sys.exit(f"the connection to port {port} ended: {seen[-300:]!r}")
            seen += piece
            if first is None and b"data: " in seen:
                first = time.perf_counter() - began
        if b"[DONE]" not in seen or first is None:
            sys.exit(f"port {port} answered {seen[:300]!r}")
        took.append(first * 1e6)
        await asyncio.sleep(0.001)
    writer.close()
    return sorted(took)


async def slow_stream(token: bytes) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", GATE)
    writer.write(request(GATE, token, "slowly"))
    seen = b""
    while not seen.endswith(b"0\r\n\r\n") and (piece := await reader.read(65536)):
        seen += piece
    writer.close()
    return b"[DONE]" in seen


def resident(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


async def main() -> None:
    folder = sys.argv[1]
    with open(f"{folder}/token", "rb") as file:
        token = file.read().strip()
    server = await asyncio.start_server(upstream, "127.0.0.1", UPSTREAM, backlog=2 * SLOW)
    command = [os.environ["CASTRA"], "up", "--config", f"{folder}/castra.toml", "--json"]
    gate = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    await gate.stdout.readline()
    try:
        for name, port in [("direct", UPSTREAM), ("castra", GATE)] * 2:
            took = await first_data(port, token)
            p50, p99 = (took[int(len(took) * q)] for q in (0.5, 0.99))
            print(f"first data, {name}: p50 {p50:.0f} µs, p99 {p99:.0f} µs", flush=True)
        print(f"memory before the slow streams: {resident(gate.pid):.0f} MiB", flush=True)
        streams = []
        for number in range(SLOW):
            streams.append(asyncio.create_task(slow_stream(token)))
            if number % 50 == 0:
                await asyncio.sleep(0.05)
        await asyncio.sleep(EVENTS * PAUSE / 2)
        print(f"memory with {SLOW} slow streams: {resident(gate.pid):.0f} MiB", flush=True)
        complete = sum(await asyncio.gather(*streams))
        print(f"complete: {complete} of {SLOW}")
        if complete != SLOW:
            sys.exit("some streams did not end well")
    finally:
        gate.terminate()
        await gate.wait()
        server.close()


asyncio.run(main())
