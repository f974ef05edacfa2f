"""What Python programs use, side by side with Session Memory.

A line of JSON on standard input says what is to be done in a slot, one on standard
output what it came to: src/slot.rs has their fields, and the same loop.
"""

import datetime
import json
import sys
import time

import redis
from langchain_community.chat_message_histories import RedisChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, message_to_dict

TTL = 3600
TEXT = (
    "Retrieval-augmented generation looks up what is known first, and answers then.\n"
    'An answer is "grounded" if it keeps to what was found, and says where that is from.\n'
)


def text(length):
    """The content of a message."""
    return (TEXT * (length // len(TEXT) + 1))[:length]


class MemoryClient:
    """The reference: RPUSH, then EXPIRE; LRANGE and json.loads; EXISTS."""

    def __init__(self, port):
        self.redis = redis.Redis(port=port, decode_responses=True)

    def open(self, session, _slot):
        self.key = "session:" + session

    def add(self, content):
        message = {
            "role": "user",
            "content": content,
            "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        }
        self.redis.rpush(self.key, json.dumps(message))
        self.redis.expire(self.key, TTL)

    def get(self, last):
        return [json.loads(element) for element in self.redis.lrange(self.key, -last, -1)]

    def exists(self):
        return self.redis.exists(self.key) > 0


class LangChain:
    """langchain-community: one object a session, which is made once."""

    def __init__(self, port):
        self.url = f"redis://127.0.0.1:{port}"
        self.session = None

    def open(self, session, slot):
        if session != self.session:
            self.session = session
            self.history = RedisChatMessageHistory(session, url=self.url, ttl=TTL)
        if slot["operation"] == "Get":
            self.fill(slot)

    def fill(self, slot):
        """Its messages have a form of their own; it keeps the newest first."""
        redis_client, key = self.history.redis_client, self.history.key
        if redis_client.llen(key) == slot["last"]:
            return
        content = text(slot["content"])
        both = HumanMessage(content), AIMessage(content)
        elements = [json.dumps(message_to_dict(message)) for message in both]
        for first in range(0, slot["last"], 1000):
            count = min(1000, slot["last"] - first)
            redis_client.lpush(key, *(elements[n % 2] for n in range(count)))

    def add(self, content):
        self.history.add_user_message(content)

    def get(self, _last):
        return self.history.messages


def operate(client, slot, content):
    """Does what a slot asks for, once."""
    match slot["operation"]:
        case "Add":
            client.add(content)
            return True
        case "Get":
            return len(client.get(slot["last"])) == slot["last"]
        case "Exists":
            return client.exists()
        case "Turn":
            client.add(content)
            return len(client.get(slot["last"])) == slot["last"]


def run(client, slot):
    """Runs a slot."""
    writes = slot["operation"] in ("Add", "Turn")
    client.open(slot["session"] + ("-0" if writes else ""), slot)
    content = text(slot["content"])
    cpu = time.process_time_ns()
    operations = 0
    until = time.perf_counter_ns() + slot["warm_up"] * 1_000_000
    while operations == 0 or (
        time.perf_counter_ns() < until and operations < slot["at_most"]
    ):
        assert operate(client, slot, content)
        operations += 1
    taken = []
    first = now = time.perf_counter_ns()
    until = now + slot["time"] * 1_000_000
    while len(taken) < slot["at_least"] or (now < until and len(taken) < slot["at_most"]):
        begin = time.perf_counter_ns()
        assert operate(client, slot, content)
        now = time.perf_counter_ns()
        taken.append(now - begin)
    return {
        "nanoseconds": taken,
        "elapsed": now - first,
        "cpu": time.process_time_ns() - cpu,
        "operations": operations + len(taken),
    }


def main():
    port = int(sys.argv[1])
    clients = {"redis-py": MemoryClient(port), "langchain": LangChain(port)}
    for line in sys.stdin:
        request = json.loads(line)
        sample = run(clients[request["client"]], request["slot"])
        print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    main()
