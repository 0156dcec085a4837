"""An idempotent producer under load. Arguments: address, how many records; every one must be acknowledged."""

import sys, time
from confluent_kafka import Producer

address, count = sys.argv[1], int(sys.argv[2])
producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "delivery.timeout.ms": 180_000,
                     "compression.type": "lz4", "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "batch.num.messages": 200})
done, failed = [0], []


def told(error, message):
    done[0] += 1
    if error is not None:
        failed.append(str(error))


for number in range(count):
    producer.produce("load", key=b"k", value=str(number).encode(), partition=0, on_delivery=told)
    producer.poll(0)
    if number % 100 == 0:
        time.sleep(0.01)
assert producer.flush(180) == 0
assert not failed, failed[:3]
assert done[0] == count
