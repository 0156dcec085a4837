"""Transactions by confluent-kafka: committed, aborted, superseded, seen and not seen. Argument: address."""

import sys, time
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address = sys.argv[1]
base = {"bootstrap.servers": address}
admin = AdminClient(base)
for future in admin.create_topics([NewTopic("tx", 3, 1), NewTopic("tx-in", 1, 1)]).values():
    future.result(30)


def producer(name):
    made = Producer({**base, "transactional.id": name, "compression.type": "zstd"})
    made.init_transactions(60)
    return made


def read(isolation, count):
    reader = Consumer({**base, "group.id": f"read-{isolation}-{time.time()}", "auto.offset.reset": "earliest",
                       "isolation.level": isolation, "enable.auto.commit": False, "enable.partition.eof": True})
    reader.assign([TopicPartition("tx", number, 0) for number in range(3)])
    got, ends, until = [], set(), time.time() + 60
    while len(ends) < 3 and time.time() < until:
        message = reader.poll(1)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ends.add(message.partition())
        else:
            got.append(message.value().decode())
    reader.close()
    assert len(ends) == 3, "the end does not come"
    assert len(got) == count, (isolation, len(got), count)
    return got


def write(made, what, count):
    for number in range(count):
        made.produce("tx", key=f"{number}", value=f"{what}-{number}")


one, two = producer("one"), producer("two")
for round in range(5):
    one.begin_transaction()
    two.begin_transaction()
    write(one, f"yes{round}", 100)
    write(two, f"no{round}", 100)
    one.flush(30)
    two.flush(30)
    two.abort_transaction(30)
    one.commit_transaction(30)
got = read("read_committed", 500)
assert all(value.startswith("yes") for value in got)
assert len(set(got)) == 500
read("read_uncommitted", 1000)

# An open one holds readers of what is committed back.
one.begin_transaction()
write(one, "open", 10)
one.flush(30)
write_more = producer("more")
write_more.begin_transaction()
write(write_more, "behind", 10)
write_more.commit_transaction(30)
read("read_committed", 500)
one.commit_transaction(30)
read("read_committed", 520)

# A new producer of the same id supersedes the one before.
old = producer("same")
old.begin_transaction()
write(old, "old", 10)
old.flush(30)
new = producer("same")
try:
    old.commit_transaction(30)
    raise AssertionError("a superseded producer has committed")
except KafkaException as error:
    assert error.args[0].fatal() or error.args[0].code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH), error
new.begin_transaction()
write(new, "new", 10)
new.commit_transaction(30)
read("read_committed", 530)

# Positions go with their transaction.
plain = Producer(base)
for number in range(20):
    plain.produce("tx-in", value=f"{number}")
assert plain.flush(30) == 0
reader = Consumer({**base, "group.id": "copier", "auto.offset.reset": "earliest", "enable.auto.commit": False,
                   "isolation.level": "read_committed"})
reader.subscribe(["tx-in"])
messages, until = [], time.time() + 60
while len(messages) < 20 and time.time() < until:
    messages += reader.consume(20, 1)
assert len(messages) == 20
place = TopicPartition("tx-in", 0)
for offset, commit in [(5, True), (9, False), (12, True)]:
    one.begin_transaction()
    write(one, "copy", 1)
    one.send_offsets_to_transaction([TopicPartition("tx-in", 0, offset)], reader.consumer_group_metadata(), 30)
    one.commit_transaction(30) if commit else one.abort_transaction(30)
    held = reader.committed([place], 30)[0].offset
    assert held == {5: 5, 9: 5, 12: 12}[offset], (offset, held)
reader.close()
print("ok")
