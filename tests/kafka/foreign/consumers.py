"""librdkafka with group.protocol=consumer: a group grows, shrinks and loses a member and the server. Arguments: address; or
address and `worker`, for a member that is to be killed. Says `kill` when the server is to be killed and started again."""

import os, signal, subprocess, sys, threading, time
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

def fail(kind, error, trace):
    # Consumers that cannot reach their group would wait for it at the end.
    sys.__excepthook__(kind, error, trace)
    os._exit(1)


sys.excepthook = fail
address = sys.argv[1]
PATIENCE = 120
PARTITIONS = 6


def consumer(group, **more):
    return Consumer({"bootstrap.servers": address, "group.id": group, "group.protocol": "consumer", "auto.offset.reset": "earliest",
                     "enable.auto.commit": False, "reconnect.backoff.max.ms": 200, **more})


class Reader:
    """A member in a thread of its own. What it has seen it commits."""

    def __init__(self, group, topics, told=lambda value: None, **more):
        self.consumer, self.told = consumer(group, **more), told
        self.seen, self.wrong, self.places, self.stop = set(), [], [], False
        self.consumer.subscribe(topics)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        fresh = False
        while not self.stop:
            message = self.consumer.poll(0.1)
            # Only here: the client waits for itself if two threads ask it.
            self.places = sorted((place.topic, place.partition) for place in self.consumer.assignment())
            if message is not None and message.error():
                self.wrong.append(str(message.error()))
            elif message is not None:
                self.told(message.value().decode())
                self.seen.add(message.value().decode())
                fresh = True
            elif fresh:
                fresh = False
                try:
                    self.consumer.commit(asynchronous=False)
                except Exception as error:
                    # The server is away, or the partition is another's by now: the records come again.
                    self.wrong.append(str(error))

    def has(self):
        return self.places

    def close(self):
        self.stop = True
        self.thread.join(PATIENCE)
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            # There may be nothing to commit.
            assert error.args[0].code() == KafkaError._NO_OFFSET, error
        self.consumer.close()


def wait(what, check):
    end = time.time() + PATIENCE
    while not check():
        assert time.time() < end, what
        time.sleep(0.05)


def shared(readers, count):
    places = [place for reader in readers for place in reader.has()]
    return len(places) == count and len(set(places)) == count


if len(sys.argv) > 2:
    worker = Reader("848", ["shared"], lambda value: print(value, flush=True))
    while True:
        time.sleep(1)

admin = AdminClient({"bootstrap.servers": address})
for future in admin.create_topics([NewTopic("shared", PARTITIONS, 1), NewTopic("reg.a", 2, 1)]).values():
    future.result(60)
producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "delivery.timeout.ms": 180_000, "reconnect.backoff.max.ms": 200})
written = set()


def write(count):
    for number in range(len(written), len(written) + count):
        producer.produce("shared", value=str(number).encode(), partition=number % PARTITIONS)
        written.add(str(number))
    assert producer.flush(PATIENCE) == 0


write(1200)
one = Reader("848", ["shared"])
wait("one member has everything", lambda: shared([one], PARTITIONS))
two = Reader("848", ["shared"])
wait("two share", lambda: shared([one, two], PARTITIONS) and len(one.has()) == 3)
child = subprocess.Popen([sys.executable, __file__, address, "worker"], stdout=subprocess.PIPE, text=True)
by_worker = []
threading.Thread(target=lambda: by_worker.extend(line.strip() for line in child.stdout), daemon=True).start()
wait("three share", lambda: shared([one, two], 4))
write(1200)
wait("the third reads", lambda: by_worker)
child.send_signal(signal.SIGKILL)
child.wait(PATIENCE)
wait("the dead member's share is the others'", lambda: shared([one, two], PARTITIONS))

print("kill", flush=True)
time.sleep(1)
write(1200)
seen = lambda: one.seen | two.seen | set(by_worker)
wait("all is read", lambda: seen() == written)
wait("everybody goes on", lambda: shared([one, two], PARTITIONS))
wait("both are members", lambda: len(admin.describe_consumer_groups(["848"])["848"].result(60).members) == 2)
two.close()
wait("the group shrinks", lambda: shared([one], PARTITIONS))
write(300)
wait("all is read by one", lambda: seen() == written)
one.close()
looker = Consumer({"bootstrap.servers": address, "group.id": "848"})
positions = looker.committed([TopicPartition("shared", part) for part in range(PARTITIONS)], 60)
assert sum(position.offset for position in positions) == len(written), positions

# By an expression, also a topic that comes later; and the other way of sharing out.
ranged = [Reader("regex", ["^reg[.].*"], **{"group.remote.assignor": "range"}) for _ in range(2)]
wait("both have one of the topic", lambda: shared(ranged, 2))
for future in admin.create_topics([NewTopic("reg.b", 2, 1)]).values():
    future.result(60)
wait("the later topic too", lambda: shared(ranged, 4))
for reader in ranged:
    assert len({partition for _, partition in reader.has()}) == 1, "the same number in both topics"
    reader.close()

# A place by name: the next of that name goes on with what the last one had.
places = [Reader("static", ["shared"], **{"group.instance.id": f"place-{number}"}) for number in range(2)]
wait("both have a share", lambda: shared(places, PARTITIONS) and len(places[0].has()) == 3)
had = places[0].has()
places[0].close()
places[0] = Reader("static", ["shared"], **{"group.instance.id": "place-0"})
wait("it is back", lambda: places[0].has() == had)
assert len(places[1].has()) == 3
for reader in places:
    reader.close()
print("ok", flush=True)
os._exit(0)
