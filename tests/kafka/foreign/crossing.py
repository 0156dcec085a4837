"""Records that cross between the two doors, unchanged, and requests of the native door answered by a Kafka consumer.
Arguments: the Kafka address, the native address, the program."""

import json, subprocess, sys, time
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address, native, program = sys.argv[1:]
PATIENCE = 120


def tidelog(*args, text=None):
    done = subprocess.run([program, *args, "--server", native], input=text, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, (args, done.stderr.decode())
    return done.stdout


def natively(topic):
    """What the native door reads."""
    lines = tidelog("consume", topic, "--json").decode().splitlines()
    return [json.loads(line) for line in lines]


def reader(topic, start=0):
    consumer = Consumer({"bootstrap.servers": address, "group.id": "crossing", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, start)])
    return consumer


def take(consumer, count):
    got, end = [], time.time() + PATIENCE
    while len(got) < count:
        assert time.time() < end, f"{len(got)} of {count}"
        message = consumer.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            got.append(message)
    return got


def create(*topics):
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics], operation_timeout=60).values():
        future.result(60)


create("outward", "inward", "crm.phone")

# From the native door to Kafka clients, with every compression.
expected = []
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    lines = [f"{codec} {number} {'ä' * number}" for number in range(50)]
    tidelog("produce", "outward", "-k", codec, "-H", "a=b", "-H", "a=c", "--compression", codec,
            text="\n".join(lines).encode())
    expected += [(codec.encode(), line.encode(), [("a", b"b"), ("a", b"c")]) for line in lines]
consumer = reader("outward")
got = [(message.key(), message.value(), message.headers()) for message in take(consumer, len(expected))]
assert got == expected, (got[:2], expected[:2])
consumer.close()

# From Kafka clients to the native door, with every compression, values that are none, and 1 MB.
expected = []
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    producer = Producer({"bootstrap.servers": address, "compression.type": codec, "message.max.bytes": 4_000_000,
                         "enable.idempotence": True})
    values = [None if number % 7 == 0 else f"{codec} {number}" for number in range(50)] + ["x" * 1_000_000]
    for value in values:
        producer.produce("inward", key=codec, value=value, headers=[("h", codec)], timestamp=1_700_000_000_123)
        expected.append((codec, value))
    assert producer.flush(PATIENCE) == 0
got = natively("inward")
assert [(record["key"], record["value"]) for record in got] == expected
assert all(record["headers"] == {"h": record["key"]} and record["timestamp"] == 1_700_000_000_123 for record in got)
consumer = reader("inward")
assert [(message.key().decode(), message.value() and message.value().decode()) for message in take(consumer, len(expected))] == expected
consumer.close()

# A request of the native door is a record; a Kafka consumer answers it by copying one header.
asking = subprocess.Popen([program, "request", "crm.phone", "4711", "--durable", "--timeout", f"{PATIENCE}s", "--server", native],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
responder = reader("crm.phone")
request = take(responder, 1)[0]
headers = dict(request.headers())
assert request.value() == b"4711", request.value()
producer = Producer({"bootstrap.servers": address})
producer.produce(headers["tidelog-reply-to"].decode(), value=b"+49 30 4711",
                 headers=[("tidelog-correlation-id", headers["tidelog-correlation-id"])])
assert producer.flush(PATIENCE) == 0
answer, errors = asking.communicate(timeout=PATIENCE)
assert asking.returncode == 0 and answer.strip() == b"+49 30 4711", (answer, errors, headers)
responder.close()
print("ok")
