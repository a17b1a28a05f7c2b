"""Usage: python client.py GATE TOKEN SDK ROUTE

Drives a model route through a gate with an official Python SDK: `openai` (chat completions and
responses), `anthropic` (messages) or `litellm` (chat completions). What the model says is in
rules.json. Prints a line per check: `ok NAME` or `failed NAME: why`.
"""
import asyncio
import json
import sys

GATE, TOKEN, SDK, ROUTE = sys.argv[1:]
HELLO = "Salve from the model."
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ROCKETS = {"type": "object", "properties": {"count": {"type": "integer"}}}
TOOLS = [("get_weather", WEATHER), ("launch_rockets", ROCKETS)]


def must(condition, what):
    if not condition:
        raise AssertionError(what)


def said(words):
    return [{"role": "user", "content": words}]


def masked(text):
    must("AKIA" not in text, f"the key came through: {text}")
    must("[redacted:" in text and text.endswith("keep it."), text)


def refused(text):
    must("launch_rockets" in text and "refused" in text.lower(), f"no refusal in {text!r}")


def weather(arguments):
    must(json.loads(arguments) == {"city": "Oslo"}, arguments)


def chat(openai, stream_of):
    """Checks of chat completions; `stream_of(**args)` gives chunks, `openai(**args)` a completion."""
    tools = [{"type": "function", "function": {"name": n, "parameters": p}} for n, p in TOOLS]

    def streamed(words, **more):
        text, calls, finish = "", {}, None
        for chunk in stream_of(messages=said(words), **more):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or []:
                    name, arguments = calls.get(call.index, ("", ""))
                    calls[call.index] = (
                        name + (call.function.name or ""),
                        arguments + (call.function.arguments or ""),
                    )
        return text, calls, finish

    def plain():
        answer = openai(messages=said("say hello"))
        must(answer.choices[0].message.content == HELLO, answer)
        must(answer.choices[0].finish_reason == "stop", answer)
        must(answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0, answer.usage)

    def stream():
        text, calls, finish = streamed("say hello")
        must((text, calls, finish) == (HELLO, {}, "stop"), (text, calls, finish))

    def key():
        masked(openai(messages=said("tell me the key")).choices[0].message.content)

    def key_streamed():
        masked(streamed("tell me the key")[0])

    def call():
        choice = openai(messages=said("call the weather tool"), tools=tools).choices[0]
        must(choice.finish_reason == "tool_calls", choice)
        must(choice.message.tool_calls[0].function.name == "get_weather", choice)
        weather(choice.message.tool_calls[0].function.arguments)

    def call_streamed():
        text, calls, finish = streamed("call the weather tool", tools=tools)
        must([name for name, _ in calls.values()] == ["get_weather"] and finish == "tool_calls", (calls, finish))
        weather(list(calls.values())[0][1])

    def call_refused():
        choice = openai(messages=said("call the rockets tool"), tools=tools).choices[0]
        must(not choice.message.tool_calls and choice.finish_reason == "stop", choice)
        refused(choice.message.content)

    def call_refused_streamed():
        text, calls, finish = streamed("call the rockets tool", tools=tools)
        must(calls == {} and finish == "stop", (calls, finish))
        refused(text)

    def one_of_two():
        text, calls, finish = streamed("call both tools", tools=tools)
        must([name for name, _ in calls.values()] == ["get_weather"] and finish == "tool_calls", (calls, finish))
        refused(text)

    return [plain, stream, key, key_streamed, call, call_streamed, call_refused, call_refused_streamed, one_of_two]


def with_openai():
    import openai

    client = openai.OpenAI(base_url=f"{GATE}/v1", api_key=TOKEN, max_retries=0, timeout=30)

    def complete(**args):
        return client.chat.completions.create(model=ROUTE, **args)

    def embeddings():
        # The mock has none, so the provider's own error must come through as one.
        try:
            client.embeddings.create(model=ROUTE, input="ave")
            raise AssertionError("it was answered")
        except openai.APIStatusError as error:
            must(error.status_code in (400, 404, 502), error)

    def models():
        must(ROUTE in [model.id for model in client.models.list()], "the route is not in the list")

    def unknown_route():
        try:
            client.chat.completions.create(model="no-such-model", messages=said("say hello"))
            raise AssertionError("it was answered")
        except openai.NotFoundError as error:
            must(error.body["code"] and "no-such-model" in error.body["message"], error.body)

    def wrong_token():
        other = openai.OpenAI(base_url=f"{GATE}/v1", api_key="wrong", max_retries=0)
        try:
            other.chat.completions.create(model=ROUTE, messages=said("say hello"))
            raise AssertionError("it was answered")
        except openai.AuthenticationError as error:
            must(error.body["message"], error.body)

    def many():
        other = openai.AsyncOpenAI(base_url=f"{GATE}/v1", api_key=TOKEN, max_retries=0, timeout=60)

        async def all_of_them():
            ask = lambda: other.chat.completions.create(model=ROUTE, messages=said("say hello"))
            return await asyncio.gather(*[ask() for _ in range(32)])

        must(all(a.choices[0].message.content == HELLO for a in asyncio.run(all_of_them())), "another answer")

    return (
        chat(complete, lambda **args: complete(stream=True, **args))
        + responses(client)
        + [embeddings, models, unknown_route, wrong_token, many]
    )


def responses(client):
    tools = [{"type": "function", "name": n, "parameters": p, "strict": False} for n, p in TOOLS]

    def create(words, **more):
        return client.responses.create(model=ROUTE, input=words, store=False, **more)

    def events_of(words, **more):
        events = list(create(words, stream=True, **more))
        kinds = [event.type for event in events]
        must(kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds)
        numbers = [event.sequence_number for event in events]
        must(numbers == sorted(set(numbers)), f"sequence numbers {numbers}")
        return events

    def calls_of(output):
        return [(item.name, item.arguments) for item in output if item.type == "function_call"]

    def response():
        answer = create("say hello")
        must(answer.output_text == HELLO and answer.status == "completed", answer)

    def response_streamed():
        events = events_of("say hello")
        must("".join(e.delta for e in events if e.type == "response.output_text.delta") == HELLO, events)
        must(events[-1].response.output_text == HELLO, events[-1])

    def response_key():
        masked(create("tell me the key").output_text)

    def response_key_streamed():
        events = events_of("tell me the key")
        masked("".join(e.delta for e in events if e.type == "response.output_text.delta"))
        masked(events[-1].response.output_text)
        must("AKIAQ" not in "".join(event.to_json() for event in events), "the key stands in another event")

    def response_call():
        name, arguments = calls_of(create("call the weather tool", tools=tools).output)[0]
        must(name == "get_weather", name)
        weather(arguments)

    def response_call_streamed():
        events = events_of("call the weather tool", tools=tools)
        done = [e for e in events if e.type == "response.function_call_arguments.done"]
        weather(done[0].arguments)
        must(calls_of(events[-1].response.output)[0][0] == "get_weather", events[-1])

    def response_call_refused():
        answer = create("call the rockets tool", tools=tools)
        must(calls_of(answer.output) == [], answer)
        refused(answer.output_text)

    def response_call_refused_streamed():
        events = events_of("call the rockets tool", tools=tools)
        must(not [e for e in events if e.type == "response.function_call_arguments.done"], events)
        must(calls_of(events[-1].response.output) == [], events[-1])
        refused(events[-1].response.output_text)

    return [
        response,
        response_streamed,
        response_key,
        response_key_streamed,
        response_call,
        response_call_streamed,
        response_call_refused,
        response_call_refused_streamed,
    ]


def with_anthropic():
    import anthropic

    client = anthropic.Anthropic(base_url=GATE, api_key=TOKEN, max_retries=0, timeout=30)
    tools = [{"name": n, "description": n, "input_schema": p} for n, p in TOOLS]

    def create(words, **more):
        return client.messages.create(model=ROUTE, max_tokens=100, messages=said(words), **more)

    def streamed(words, **more):
        with client.messages.stream(model=ROUTE, max_tokens=100, messages=said(words), **more) as stream:
            return stream.get_final_message()

    def text_of(message):
        return "".join(block.text for block in message.content if block.type == "text")

    def calls_of(message):
        return [(block.name, block.input) for block in message.content if block.type == "tool_use"]

    def both(name, words, check, **more):
        def whole():
            check(create(words, **more))

        def in_pieces():
            check(streamed(words, **more))

        whole.__name__, in_pieces.__name__ = name, f"{name}_streamed"
        return [whole, in_pieces]

    def is_hello(message):
        must(text_of(message) == HELLO and message.stop_reason == "end_turn", message)
        must(message.usage.input_tokens > 0 and message.usage.output_tokens > 0, message.usage)

    def is_call(message):
        must(calls_of(message) == [("get_weather", {"city": "Oslo"})], message)
        must(message.stop_reason == "tool_use", message)

    def is_refused(message):
        must(calls_of(message) == [] and message.stop_reason == "end_turn", message)
        refused(text_of(message))

    def is_one_of_two(message):
        must(calls_of(message) == [("get_weather", {"city": "Oslo"})], message)
        must(message.stop_reason == "tool_use", message)
        refused(text_of(message))

    def bearer():
        other = anthropic.Anthropic(base_url=GATE, auth_token=TOKEN, api_key=None, max_retries=0)
        is_hello(other.messages.create(model=ROUTE, max_tokens=100, messages=said("say hello")))

    def unknown_route():
        try:
            client.messages.create(model="no-such-model", max_tokens=9, messages=said("say hello"))
            raise AssertionError("it was answered")
        except anthropic.NotFoundError as error:
            must("no-such-model" in error.body["error"]["message"], error.body)

    def wrong_token():
        other = anthropic.Anthropic(base_url=GATE, api_key="wrong", max_retries=0)
        try:
            other.messages.create(model=ROUTE, max_tokens=9, messages=said("say hello"))
            raise AssertionError("it was answered")
        except anthropic.AuthenticationError as error:
            must(error.body["type"] == "error", error.body)

    def models():
        must(ROUTE in [model.id for model in client.models.list()], "the route is not in the list")

    return (
        both("message", "say hello", is_hello)
        + both("message_key", "tell me the key", lambda message: masked(text_of(message)))
        + both("message_call", "call the weather tool", is_call, tools=tools)
        + both("message_call_refused", "call the rockets tool", is_refused, tools=tools)
        + both("message_one_of_two", "call both tools", is_one_of_two, tools=tools)
        + [bearer, unknown_route, wrong_token, models]
    )


def with_litellm():
    import litellm

    litellm.suppress_debug_info = True
    where = {"model": f"openai/{ROUTE}", "api_base": f"{GATE}/v1", "api_key": TOKEN, "num_retries": 0}

    def complete(**args):
        return litellm.completion(**where, **args)

    return chat(complete, lambda **args: complete(stream=True, **args))


for check in {"openai": with_openai, "anthropic": with_anthropic, "litellm": with_litellm}[SDK]():
    try:
        check()
        print(f"ok {check.__name__}", flush=True)
    except BaseException as error:  # noqa: BLE001 - whatever went wrong, the other checks go on
        why = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"failed {check.__name__}: {why[:600]}", flush=True)
