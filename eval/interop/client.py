"""Usage: python client.py ERA URL TOKEN SERVER FOLDER

Drives one MCP server through a gate with the official Python SDK; ERA is a protocol revision.
Prints a line per check: `ok NAME` or `failed NAME: why`.
"""
import asyncio
import sys
import time

import httpx2
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client

ERA, URL, TOKEN, SERVER, FOLDER = sys.argv[1:]
MINE = f"{FOLDER}/python-{ERA}.txt"


async def elicited(_context, _params):
    return types.ElicitResult(action="accept", content={"name": "Marcus Tullius Cicero"})


async def sampled(_context, _params):
    content = types.TextContent(type="text", text="Civis romanus sum")
    return types.CreateMessageResult(role="assistant", content=content, model="none", stop_reason="endTurn")


async def roots(_context):
    return types.ListRootsResult(roots=[types.Root(uri="file:///forum", name="forum")])


def text(result):
    return "\n".join(part.text for part in result.content if part.type == "text")


def must(condition, what):
    if not condition:
        raise AssertionError(what)


async def progress(client):
    seen = []

    async def reported(value, total, message):
        seen.append((value, total, message))

    await client.call_tool("trigger-long-running-operation", {"duration": 1, "steps": 4}, progress_callback=reported)
    must(len(seen) >= 3, f"{len(seen)} reports of progress")


async def cancellation(client):
    started = time.monotonic()
    try:
        async with asyncio.timeout(0.3):
            await client.call_tool("trigger-long-running-operation", {"duration": 30, "steps": 3})
        raise AssertionError("it was answered")
    except TimeoutError:
        must(time.monotonic() - started < 5, "it went on")
    # The connection is still good.
    must("ave" in text(await client.call_tool("echo", {"message": "ave"})), "no echo afterwards")


async def unknown_tool(client):
    try:
        must((await client.call_tool("no-such-tool", {})).is_error, "it was answered")
    except Exception as error:  # an error of the protocol is as good
        must(not isinstance(error, AssertionError), str(error))


async def tools_list(client, name):
    must(name in [tool.name for tool in (await client.list_tools()).tools], f"no tool {name}")


async def call(client, tool, arguments, expected):
    result = await client.call_tool(tool, arguments)
    must(expected in text(result), f"no {expected!r} in {text(result)[:80]!r}")


async def everything_structured(client):
    result = await client.call_tool("get-structured-content", {"location": "New York"})
    must("temperature" in (result.structured_content or {}), "no structured content")


async def resources(client):
    must((await client.list_resources()).resources, "no resources")
    must((await client.list_resource_templates()).resource_templates, "no templates")
    must((await client.read_resource("demo://resource/dynamic/text/1")).contents, "no contents")


async def prompts(client):
    must("args-prompt" in [prompt.name for prompt in (await client.list_prompts()).prompts], "no prompt")
    must("Roma" in (await client.get_prompt("args-prompt", {"city": "Roma"})).model_dump_json(), "no city")


async def completion(client):
    reference = types.PromptReference(type="ref/prompt", name="completable-prompt")
    answer = await client.complete(reference, {"name": "department", "value": "E"})
    must(answer.completion.values, "no completions")


async def outside(client):
    must((await client.call_tool("read_text_file", {"path": "/etc/hostname"})).is_error, "it was read")


CHECKS = {
    "everything": {
        "tools/list": lambda c: tools_list(c, "echo"),
        "tools/call": lambda c: call(c, "echo", {"message": "ave"}, "ave"),
        "structured content": everything_structured,
        "progress": progress,
        "cancellation": cancellation,
        "resources": resources,
        "prompts": prompts,
        "completion/complete": completion,
        "elicitation": lambda c: call(c, "trigger-elicitation-request", {}, "Cicero"),
        "sampling": lambda c: call(c, "trigger-sampling-request", {"prompt": "Quis es?", "maxTokens": 10}, "Civis romanus sum"),
        "unknown tool": unknown_tool,
    },
    "filesystem": {
        "tools/list": lambda c: tools_list(c, "read_text_file"),
        "write": lambda c: call(c, "write_file", {"path": MINE, "content": "salve"}, "wrote"),
        "read": lambda c: call(c, "read_text_file", {"path": MINE}, "salve"),
        "outside the folder": outside,
    },
    "memory": {
        "write": lambda c: call(
            c, "create_entities", {"entities": [{"name": f"python-{ERA}", "entityType": "client", "observations": ["it was here"]}]}, "python"
        ),
        "read": lambda c: call(c, "read_graph", {}, f"python-{ERA}"),
    },
    "git": {
        "tools/list": lambda c: tools_list(c, "git_status"),
        "status": lambda c: call(c, "git_status", {"repo_path": FOLDER}, "main"),
    },
    "time": {"now": lambda c: call(c, "get_current_time", {"timezone": "UTC"}, "UTC")},
}


async def main():
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)
    mode = ERA if ERA == "2026-07-28" else "legacy"
    client = Client(
        streamable_http_client(URL, http_client=http),
        mode=mode,
        elicitation_callback=elicited,
        sampling_callback=sampled,
        list_roots_callback=roots,
        cache=None,
    )
    try:
        async with http, client:
            print("ok connect")
            for name, check in CHECKS[SERVER].items():
                try:
                    await asyncio.wait_for(check(client), 30)
                    print(f"ok {name}", flush=True)
                except BaseException as error:
                    why = str(error).split("\n")[0] or type(error).__name__
                    print(f"failed {name}: {why}", flush=True)
    except BaseException as error:
        print(f"failed connect: {error!r}")


asyncio.run(main())
