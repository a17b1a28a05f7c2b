"""An MCP server on standard streams that does what its caller asks for, right or wrong.

The first argument is its era: modern, lasting (modern, whose subscriptions last), legacy, silent
(legacy, says nothing to server/discover), touchy (legacy, ends when it is sent server/discover),
broken (ends at once). Tools are the ways to behave; each is named by what it does.
"""
import json
import os
import sys
import time

ERA = sys.argv[1]
MODERN = ERA in ("modern", "lasting")
HELD = []
GOT = []
SUBSCRIBED = []
LISTED = {
    "pid": {"readOnlyHint": True},
    "progress": {"readOnlyHint": True},
    "log": {"readOnlyHint": True},
    "hold": {"readOnlyHint": True},
    "die": {"readOnlyHint": True},
    "change": {"readOnlyHint": True},
}


def write(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def send(**message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


def complete(**result):
    return {"resultType": "complete", **result} if MODERN else result


def text(value):
    return complete(content=[{"type": "text", "text": value}])


def progress(token, value):
    send(method="notifications/progress", params={"progressToken": token, "progress": value})


def call(id, params):
    name, token = params["name"], params.get("_meta", {}).get("progressToken")
    if name == "echo":
        send(id=id, result=text(json.dumps(params.get("arguments"))))
    elif name == "ids":
        send(id=id, result=text(json.dumps([id, token])))
    elif name == "got":
        send(id=id, result=text(json.dumps(GOT)))
    elif name == "progress":
        for value in range(3):
            progress(token, value)
        send(id=id, result=text("done"))
    elif name == "log":
        send(method="notifications/message", params={"level": "info", "data": "hello"})
        send(id=id, result=text("done"))
    elif name == "pid":
        send(id=id, result=text(str(os.getpid())))
    elif name == "change":
        changed()
        send(id=id, result=text("done"))
    elif name == "ask":
        send(id="q1", method="elicitation/create", params={"message": "sure?", "requestedSchema": {"type": "object"}})
        HELD.append(id)
    elif name == "ping":
        send(id="p1", method="ping")
        HELD.append(id)
    elif name == "hold":
        HELD.append(id)
    elif name == "release":
        send(id=id, result=text("released"))
        while HELD:
            send(id=HELD.pop(), result=text("late"))
    elif name == "die":
        sys.exit(3)
    elif name == "close":
        os.close(1)
        time.sleep(600)
    elif name == "twice":
        send(id=id, result=text("first"))
        send(id=id, result=text("second"))
    elif name == "other":
        send(id=123456, result=text("whose?"))
    elif name == "noid":
        send(id=None, error={"code": -32700, "message": "what?"})
    elif name == "banner":
        write("Server ready on stdio!")
        write("")
        send(id=id, result=text("done"))
    elif name == "broken":
        write('{"jsonrpc":"2.0","id":%d,"result":{' % id)
    elif name == "utf8":
        sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":%d,"result":{"x":"\xff"}}\n' % id)
        sys.stdout.flush()
    elif name == "endless":
        while True:
            sys.stdout.write("x" * 65536)
    elif name == "flood":
        for value in range(200000):
            progress(token, value)
    elif name == "stranger":
        progress(999999, 1)
        progress("mine", 1)
        send(id=id, result=text("done"))
    else:
        send(id=id, error={"code": -32602, "message": "no such tool"})


def changed():
    if not MODERN:
        send(method="notifications/tools/list_changed")
    for id in SUBSCRIBED:
        meta = {"io.modelcontextprotocol/subscriptionId": id}
        send(method="notifications/tools/list_changed", params={"_meta": meta})


def subscribe(id):
    meta = {"io.modelcontextprotocol/subscriptionId": id}
    send(method="notifications/subscriptions/acknowledged", params={"_meta": meta, "notifications": {}})
    if ERA == "lasting":
        SUBSCRIBED.append(id)
        return
    send(method="notifications/tools/list_changed", params={"_meta": meta})
    send(method="notifications/cancelled", params={"requestId": id})


def tools():
    schema = {"type": "object"}
    return [{"name": name, "inputSchema": schema, "annotations": hints} for name, hints in LISTED.items()]


def answer(message):
    method, id = message.get("method"), message.get("id")
    if method == "server/discover":
        if MODERN:
            send(id=id, result={"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}})
        elif ERA == "touchy":
            sys.exit(1)
        elif ERA != "silent":
            send(id=id, error={"code": -32601, "message": "Method not found"})
    elif method == "initialize" and not MODERN:
        version = message["params"]["protocolVersion"]
        info = {"name": "child", "version": "1"}
        send(id=id, result={"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}, "serverInfo": info})
    elif method == "tools/list":
        send(id=id, result=complete(tools=tools(), **({"ttlMs": 0, "cacheScope": "public"} if MODERN else {})))
    elif method == "tools/call":
        call(id, message["params"])
    elif method == "subscriptions/listen":
        subscribe(id)
    elif id is not None and method is not None:
        send(id=id, error={"code": -32601, "message": "Method not found"})
    else:
        GOT.append(message.get("method") or message["id"])
        if method is None or method == "notifications/cancelled":
            GOT[-1] = message
        if method is None:
            send(id=HELD.pop(), result=text(json.dumps(message.get("result"))))


if ERA == "broken":
    sys.exit(9)
for line in sys.stdin:
    answer(json.loads(line))
