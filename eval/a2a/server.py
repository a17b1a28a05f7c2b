"""Usage: python server.py PORT KEY_SET_FILE

An agent made with the official Python SDK, in both HTTP bindings, with a signed card. Prints one line
of JSON when it serves: {"port": ...}. It streams its answer in two pieces, and an input that contains
"secret" is answered with a key, cut in the middle.
"""
import asyncio
import base64
import json
import sys

import uvicorn
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, Task, TaskState, TaskStatus
from a2a.utils.signing import create_agent_card_signer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

PORT, KEYS = int(sys.argv[1]), sys.argv[2]
SECRET = "AKIAIOSFODNN7EXAMPLQ"


class Echo(AgentExecutor):
    async def execute(self, context, queue):
        text = context.get_user_input()
        if not context.current_task:
            await queue.enqueue_event(Task(
                id=context.task_id, context_id=context.context_id,
                status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED), history=[context.message]))
        updater = TaskUpdater(queue, context.task_id, context.context_id)
        await updater.start_work()
        said = SECRET if "secret" in text else f"echo: {text}"
        first, second = said[:9], said[9:]
        await updater.add_artifact([Part(text=first)], artifact_id="answer", append=False, last_chunk=False)
        await updater.add_artifact([Part(text=second)], artifact_id="answer", append=True, last_chunk=True)
        if "wait" in text:
            await asyncio.sleep(30)
        await updater.complete()

    async def cancel(self, context, queue):
        await TaskUpdater(queue, context.task_id, context.context_id).cancel()


def number(value):
    return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()


def signed(card):
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": number(public.x), "y": number(public.y), "kid": "k1", "alg": "ES256"}
    with open(KEYS, "w") as out:
        json.dump({"keys": [jwk]}, out)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return create_agent_card_signer(pem, {"kid": "k1", "alg": "ES256", "jku": None, "typ": "JOSE"})(card)


def main():
    base = f"http://127.0.0.1:{PORT}"
    card = AgentCard(
        name="Echo", description="Says what it hears", version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=f"{base}/", protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=f"{base}/rest", protocol_binding="HTTP+JSON", protocol_version="1.0"),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=["text/plain"], default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Echoes", tags=["text"])],
    )
    card = signed(card)
    handler = DefaultRequestHandler(
        agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=card,
        push_config_store=InMemoryPushNotificationConfigStore(), extended_agent_card=card)
    routes = create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/") + create_rest_routes(handler, path_prefix="/rest")
    print(json.dumps({"port": PORT}), flush=True)
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=PORT, log_level="warning")


main()
