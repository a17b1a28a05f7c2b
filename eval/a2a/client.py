"""Usage: python client.py BINDING URL TOKEN [direct]

Drives an agent through a gate with the official Python SDK; BINDING is JSONRPC or HTTP+JSON, URL the
agent's address at the gate. Prints a line per check: `ok NAME` or `failed NAME: why`. With `direct`
there is no gate, and what only a gate does is not checked.
"""
import asyncio
import sys

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import (
    CancelTaskRequest, DeleteTaskPushNotificationConfigRequest, GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest, GetTaskRequest, ListTaskPushNotificationConfigsRequest,
    ListTasksRequest, Message, Part, Role, SendMessageRequest, SubscribeToTaskRequest, TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import TaskNotFoundError

BINDING, URL, TOKEN = sys.argv[1:4]
DIRECT = "direct" in sys.argv[4:]
HOOK = "https://hooks.example/in/1"


def must(condition, what):
    if not condition:
        raise AssertionError(what)


def ask(text, **more):
    return SendMessageRequest(message=Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text=text)], **more))


class Checks:
    def __init__(self, http, card):
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=[BINDING], streaming=False)
        streaming = ClientConfig(httpx_client=http, supported_protocol_bindings=[BINDING], streaming=True)
        self.card = card
        self.whole, self.streamed = ClientFactory(config).create(card), ClientFactory(streaming).create(card)

    async def task(self, text="ave"):
        async for event in self.whole.send_message(ask(text)):
            return event.task
        raise AssertionError("nothing came")

    async def card_leads_to_the_gate(self):
        urls = {interface.url.rstrip("/") for interface in self.card.supported_interfaces}
        must(DIRECT or urls == {URL}, f"{urls}")

    async def send(self):
        task = await self.task()
        must(task.status.state == TaskState.TASK_STATE_COMPLETED, task)
        must("echo: ave" == "".join(p.text for p in task.artifacts[0].parts), task)

    async def stream(self):
        said, last = "", None
        async for event in self.streamed.send_message(ask("salve")):
            if event.HasField("artifact_update"):
                said += "".join(p.text for p in event.artifact_update.artifact.parts)
            if event.HasField("status_update"):
                last = event.status_update.status.state
        must(said == "echo: salve", said)
        must(last == TaskState.TASK_STATE_COMPLETED, last)

    async def masked(self):
        said = ""
        async for event in self.streamed.send_message(ask("tell me the secret")):
            if event.HasField("artifact_update"):
                said += "".join(p.text for p in event.artifact_update.artifact.parts)
        must(DIRECT or said == "[redacted:aws-access-key]", said)

    async def get_and_list(self):
        task = await self.task()
        got = await self.whole.get_task(GetTaskRequest(id=task.id))
        must(got.id == task.id, got)
        listed = await self.whole.list_tasks(ListTasksRequest(context_id=task.context_id))
        must([t.id for t in listed.tasks] == [task.id], listed)

    async def cancel_and_subscribe(self):
        stream = self.streamed.send_message(ask("wait"))
        first = await anext(stream)
        id = first.task.id
        seen = self.streamed.subscribe(SubscribeToTaskRequest(id=id))
        must((await anext(seen)).HasField("task"), "no task first")
        canceled = await self.whole.cancel_task(CancelTaskRequest(id=id))
        must(canceled.status.state == TaskState.TASK_STATE_CANCELED, canceled)
        await stream.aclose()
        await seen.aclose()

    async def push(self):
        task = await self.task()
        made = await self.whole.create_task_push_notification_config(
            TaskPushNotificationConfig(task_id=task.id, id="p1", url=HOOK, token="t"))
        must(made.url == HOOK, made)
        got = await self.whole.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=task.id, id="p1"))
        must(got.token == "t", got)
        listed = await self.whole.list_task_push_notification_configs(
            ListTaskPushNotificationConfigsRequest(task_id=task.id))
        must(len(listed.configs) == 1, listed)
        await self.whole.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="p1"))

    async def push_elsewhere(self):
        task = await self.task()
        try:
            await self.whole.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id=task.id, id="p2", url="https://elsewhere.example/x"))
        except Exception:
            return
        must(DIRECT, "it was taken")

    async def extended_card(self):
        card = await self.whole.get_extended_agent_card(GetExtendedAgentCardRequest())
        urls = {interface.url.rstrip("/") for interface in card.supported_interfaces}
        must(DIRECT or urls == {URL}, f"{urls}")

    async def unknown_task(self):
        try:
            await self.whole.get_task(GetTaskRequest(id="none"))
        except TaskNotFoundError:
            return
        raise AssertionError("it was found")


async def card_of(http):
    """The card; a gate that has just started may not have it yet."""
    for _ in range(100):
        try:
            return await A2ACardResolver(http, URL).get_agent_card()
        except Exception as error:
            last = error
            await asyncio.sleep(0.1)
    raise last


async def main():
    headers = {} if DIRECT else {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        card = await card_of(http)
        checks = Checks(http, card)
        for name in [n for n in vars(Checks) if not n.startswith("_") and n != "task"]:
            try:
                await asyncio.wait_for(getattr(checks, name)(), 30)
                print(f"ok {name}", flush=True)
            except BaseException as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                print(f"failed {name}: {why[:300]}", flush=True)


asyncio.run(main())
