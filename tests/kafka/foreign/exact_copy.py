"""Copies topic `in` to topic `out`, each record once: consume, produce, commit, in one transaction. Arguments: address, how
many records there are. Ends with 0 when all are copied, with 3 when it is to be started again."""

import os, sys, time
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

address, count = sys.argv[1], int(sys.argv[2])
base = {"bootstrap.servers": address, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50}
reader = Consumer({**base, "group.id": "copy", "auto.offset.reset": "earliest", "enable.auto.commit": False,
                   "isolation.level": "read_committed", "group.instance.id": "copy-1", "session.timeout.ms": 10_000,
                   "heartbeat.interval.ms": 300})
writer = Producer({**base, "transactional.id": "copy", "transaction.timeout.ms": 20_000, "linger.ms": 0})
reader.subscribe(["in"])
try:
    writer.init_transactions(60)
    silent = time.time()
    while True:
        messages = [message for message in reader.consume(50, 0.5) if message.error() is None]
        # So that it is not over before anything is killed.
        time.sleep(0.02)
        if not messages:
            if reader.committed([TopicPartition("in", 0)], 30)[0].offset == count:
                break
            if time.time() - silent > 30:
                raise KafkaException("nothing comes")
            continue
        silent = time.time()
        writer.begin_transaction()
        for message in messages:
            writer.produce("out", value=message.value(), partition=0)
        last = messages[-1]
        at = TopicPartition(last.topic(), last.partition(), last.offset() + 1)
        writer.send_offsets_to_transaction([at], reader.consumer_group_metadata(), 60)
        writer.commit_transaction(60)
except KafkaException as error:
    print(error, file=sys.stderr, flush=True)
    os._exit(3)
print("ok", flush=True)
os._exit(0)
