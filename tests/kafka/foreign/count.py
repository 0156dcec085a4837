"""Reads a topic to its end. Arguments: address, how many records; they must be there in order, each once."""

import sys
from confluent_kafka import Consumer, TopicPartition

address, count = sys.argv[1], int(sys.argv[2])
consumer = Consumer({"bootstrap.servers": address, "group.id": "count", "enable.auto.commit": False})
consumer.assign([TopicPartition("load", 0, 0)])
low, high = consumer.get_watermark_offsets(TopicPartition("load", 0), 30)
assert (low, high) == (0, count), (low, high)
expected = 0
while expected < count:
    for message in consumer.consume(1000, 30):
        assert message.error() is None, message.error()
        assert int(message.value()) == expected, (message.value(), expected)
        expected += 1
consumer.close()
print("ok")
