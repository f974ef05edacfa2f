"""The Python clients of the benchmark: a process that runs bursts.

Requests come from standard input, responses go to standard output, each one line of JSON.
src/burst.rs defines their fields and has the same loop.
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
    """Returns the content of a message."""
    return (TEXT * (length // len(TEXT) + 1))[:length]


class MemoryClient:
    """redis-py: RPUSH, then EXPIRE; LRANGE and json.loads; EXISTS."""

    def __init__(self, port):
        self.redis = redis.Redis(port=port, decode_responses=True)

    def open(self, session, _burst):
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
    """langchain-community: one object for each session, created once."""

    def __init__(self, port):
        self.url = f"redis://127.0.0.1:{port}"
        self.session = None

    def open(self, session, burst):
        if session != self.session:
            self.session = session
            self.history = RedisChatMessageHistory(session, url=self.url, ttl=TTL)
        if burst["operation"] == "Get":
            self.fill(burst)

    def fill(self, burst):
        """Writes a session in LangChain's own format, which has the newest message first."""
        redis_client, key = self.history.redis_client, self.history.key
        if redis_client.llen(key) == burst["last"]:
            return
        content = text(burst["content"])
        both = HumanMessage(content), AIMessage(content)
        elements = [json.dumps(message_to_dict(message)) for message in both]
        for first in range(0, burst["last"], 1000):
            count = min(1000, burst["last"] - first)
            redis_client.lpush(key, *(elements[n % 2] for n in range(count)))

    def add(self, content):
        self.history.add_user_message(content)

    def get(self, _last):
        return self.history.messages


def operate(client, burst, content):
    """Runs the operation of a burst once. Returns whether the result is as expected."""
    match burst["operation"]:
        case "Add":
            client.add(content)
            return True
        case "Get":
            return len(client.get(burst["last"])) == burst["last"]
        case "Exists":
            return client.exists()
        case "Turn":
            client.add(content)
            return len(client.get(burst["last"])) == burst["last"]


def run(client, burst):
    """Runs a burst."""
    writes = burst["operation"] in ("Add", "Turn")
    client.open(burst["session"] + ("-0" if writes else ""), burst)
    content = text(burst["content"])
    cpu = time.process_time_ns()
    operations = 0
    until = time.perf_counter_ns() + burst["warm_up"] * 1_000_000
    while operations == 0 or (
        time.perf_counter_ns() < until and operations < burst["max_operations"]
    ):
        assert operate(client, burst, content)
        operations += 1
    taken = []
    first = now = time.perf_counter_ns()
    until = now + burst["time"] * 1_000_000
    while len(taken) < burst["min_operations"] or (now < until and len(taken) < burst["max_operations"]):
        begin = time.perf_counter_ns()
        assert operate(client, burst, content)
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
        sample = run(clients[request["client"]], request["burst"])
        print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    main()
