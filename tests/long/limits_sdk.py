"""What the official SDKs make of refusals and of streams that end at their budget. Run by limits_sdk."""
import anthropic
import openai

BASE = "http://127.0.0.1:18380"
ASK = [{"role": "user", "content": "Tell me something long."}]
passed = []


def of_openai(key):
    return openai.OpenAI(base_url=f"{BASE}/v1", api_key=f"tg-{key}", max_retries=0)


def of_anthropic(key):
    return anthropic.Anthropic(base_url=BASE, api_key=f"tg-{key}", max_retries=0)


def chat(key):
    return of_openai(key).chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=40)


def message(key):
    return of_anthropic(key).messages.create(model="claude-sonnet-5", messages=ASK, max_tokens=40)


def refused(name, call, error, seconds_max, should_retry):
    """Calls until it is refused: by the SDK's own error, with a time after which to try again."""
    for _ in range(5):
        try:
            call()
        except error as raised:
            headers = raised.response.headers
            seconds = float(headers["retry-after"])
            assert raised.status_code == 429 and 0 < seconds <= seconds_max, (name, headers)
            assert headers["x-should-retry"] == should_retry, (name, headers)
            passed.append(f"{name}: {error.__name__}, again in {seconds:.0f} s: {raised.message}")
            return
    raise AssertionError(f"{name}: never refused")


def stops_chat():
    stream = of_openai("chat").chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert reasons == ["length"] and text, (reasons, text)
    passed.append(f"chat stream: length after {len(text)} characters")


def stops_responses():
    events = list(of_openai("responses").responses.create(model="gpt-4o", input="Tell me something long.", stream=True))
    last = events[-1]
    assert last.type == "response.incomplete", last
    assert last.response.incomplete_details.reason == "max_output_tokens" and last.response.output_text
    passed.append(f"responses stream: incomplete after {len(last.response.output_text)} characters")


def stops_messages():
    asked = of_anthropic("messages").messages.stream(model="claude-sonnet-5", messages=ASK, max_tokens=400)
    with asked as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert message.stop_reason == "max_tokens" and text, message
    passed.append(f"messages stream: max_tokens after {len(text)} characters")


refused("OpenAI, rate", lambda: chat("rate"), openai.RateLimitError, 60, "true")
refused("Anthropic, rate", lambda: message("rate"), anthropic.RateLimitError, 60, "true")
refused("OpenAI, budget", lambda: chat("quota"), openai.RateLimitError, 86_400, "false")
refused("Anthropic, budget", lambda: message("quota"), anthropic.RateLimitError, 86_400, "false")
stops_chat()
stops_responses()
stops_messages()
print("\n".join(passed))
print(f"{len(passed)} passed")
