"""kafka-python, which speaks the newest versions. Argument: address."""

import sys, time
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

address = sys.argv[1]
admin = KafkaAdminClient(bootstrap_servers=address)
admin.create_topics([NewTopic("kp", 2, 1)])
expected = set()
for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    producer = KafkaProducer(bootstrap_servers=address, compression_type=codec, acks="all", max_request_size=4_000_000)
    sent = []
    for number in range(100):
        key = f"{codec}-{number}"
        value = None if number % 7 == 0 else key.encode()
        sent.append(producer.send("kp", key=key.encode(), value=value, headers=[("h", b"v")], timestamp_ms=1_000 + number))
        expected.add(key)
    sent.append(producer.send("kp", key=f"{codec}-large".encode(), value=b"x" * 1_000_000, timestamp_ms=5_000))
    expected.add(f"{codec}-large")
    producer.flush(60)
    assert all(future.get(60).offset >= 0 for future in sent)
    producer.close()

consumer = KafkaConsumer("kp", bootstrap_servers=address, group_id="kp-group", auto_offset_reset="earliest",
                         enable_auto_commit=False, consumer_timeout_ms=60_000, max_partition_fetch_bytes=4_000_000)
seen = set()
for record in consumer:
    seen.add(record.key.decode())
    if not record.key.endswith(b"large"):
        assert record.headers[0][0] == "h" and bytes(record.headers[0][1]) == b"v", record
        assert record.value is None or record.value == record.key
    if len(seen) == len(expected):
        break
assert seen == expected
consumer.commit()
places = [TopicPartition("kp", part) for part in range(2)]
assert sum(consumer.committed(place) for place in places) == len(expected)
found = consumer.offsets_for_times({place: 5_000 for place in places})
assert any(place and place.timestamp == 5_000 for place in found.values())
assert sum(consumer.end_offsets(places).values()) == len(expected)

# The group grows and shrinks.
other = KafkaConsumer("kp", bootstrap_servers=address, group_id="kp-group", enable_auto_commit=False)
end = time.time() + 60
while not (len(consumer.assignment()) == len(other.assignment()) == 1):
    assert time.time() < end, (consumer.assignment(), other.assignment())
    assert not consumer.poll(200) and not other.poll(200), "committed records came again"
consumer.close()
while len(other.assignment()) != 2:
    assert time.time() < end, other.assignment()
    assert not other.poll(200), "committed records came again"

# A seek by time.
for place, at in found.items():
    if at:
        other.seek(place, at.offset)
        records = other.poll(30_000).get(place, [])
        assert records and records[0].timestamp == 5_000, records
other.close()
admin.delete_topics(["kp"])
print("ok")
