"""What the native door does with records, done by Kafka clients: they answer requests, feed routes, and see what routes make.
Arguments: the Kafka address, the native address, the program."""

import json, subprocess, sys, time
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer, KafkaProducer
from common import PATIENCE

address, native, program = sys.argv[1:]


def reader(topic):
    consumer = Consumer({"bootstrap.servers": address, "group.id": "patterns", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
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


admin = AdminClient({"bootstrap.servers": address})
topics = ["crm.phone", "billing.invoices", "crm.emea", "crm.apac", "billing.unrouted"]
for future in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics], operation_timeout=PATIENCE).values():
    future.result(PATIENCE)


def asking(number):
    """A request of the native door, which is a record."""
    return subprocess.Popen([program, "request", "crm.phone", number, "--durable", "--timeout", f"{PATIENCE}s", "--server", native],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# One header says where the reply goes, another one is copied into it.
first = asking("4711")
responder = reader("crm.phone")
request = take(responder, 1)[0]
headers = dict(request.headers())
assert request.value() == b"4711", request.value()
producer = Producer({"bootstrap.servers": address})
producer.produce(headers["tidelog-reply-to"].decode(), value=b"+49 30 4711",
                 headers=[("tidelog-correlation-id", headers["tidelog-correlation-id"])])
assert producer.flush(PATIENCE) == 0
answer, errors = first.communicate(timeout=PATIENCE)
assert first.returncode == 0 and answer.strip() == b"+49 30 4711", (answer, errors, headers)
responder.close()

# So does a client that is another implementation, as the member of a group.
second = asking("4712")
responder = KafkaConsumer("crm.phone", bootstrap_servers=address, group_id="phones", auto_offset_reset="earliest",
                          consumer_timeout_ms=PATIENCE * 1000)
request = next(record for record in responder if bytes(record.value) == b"4712")
headers = dict(request.headers)
replying = KafkaProducer(bootstrap_servers=address)
replying.send(bytes(headers["tidelog-reply-to"]).decode(), b"+49 30 4712",
              headers=[("tidelog-correlation-id", bytes(headers["tidelog-correlation-id"]))]).get(PATIENCE)
answer, errors = second.communicate(timeout=PATIENCE)
assert second.returncode == 0 and answer.strip() == b"+49 30 4712", (answer, errors, headers)
responder.close()
replying.close()

# Records of a Kafka producer feed a route (in the test beside this), and Kafka consumers see where it put them. What it did not
# change is as it was written: key, value, headers, time.
regions = ["emea", "apac", "nowhere"]
for number in range(90):
    value = json.dumps({"id": number, "region": regions[number % 3], "text": "ä"}, ensure_ascii=False)
    producer.produce("billing.invoices", key=f"k{number}", value=value, headers=[("a", b"1"), ("a", b"2"), ("none", None)],
                     timestamp=1_700_000_000_000 + number)
assert producer.flush(PATIENCE) == 0
for region, topic in zip(regions, ["crm.emea", "crm.apac", "billing.unrouted"]):
    consumer = reader(topic)
    for number, message in zip(range(regions.index(region), 90, 3), take(consumer, 30)):
        value = json.loads(message.value())
        assert (value["id"], value["region"]) == (number, region), value
        assert message.value() == json.dumps(value, ensure_ascii=False).encode(), "the value was touched"
        assert message.key() == f"k{number}".encode(), message.key()
        assert message.headers()[:3] == [("a", b"1"), ("a", b"2"), ("none", None)], message.headers()
        assert message.timestamp()[1] == 1_700_000_000_000 + number, message.timestamp()
        added = [("tidelog-route", b"invoices"), ("tidelog-source", f"billing.invoices/0/{number}".encode())]
        added += [("by", b"the route")] if region == "emea" else []
        assert sorted(message.headers()[3:]) == sorted(added), message.headers()
    consumer.close()
print("ok")
