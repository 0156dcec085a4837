"""librdkafka by confluent-kafka: every compression, groups, seeks by time, administration, positions. Argument: address."""

import sys, time
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, AlterConfigOpType, ConfigEntry, ResourceType

address = sys.argv[1]
base = {"bootstrap.servers": address}
admin = AdminClient(base)


def done(futures):
    for future in futures.values():
        future.result(30)


def consumer(group, **more):
    return Consumer({**base, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, **more})


def take(reader, count):
    got = []
    end = time.time() + 60
    while len(got) < count and time.time() < end:
        message = reader.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            got.append(message)
    assert len(got) == count, f"{len(got)} of {count}"
    return got


done(admin.create_topics([NewTopic("rd", 3, 1, config={"retention.ms": "3600000"})], operation_timeout=30))
large = b"x" * 1_000_000
expected = set()
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    producer = Producer({**base, "compression.type": codec, "enable.idempotence": True, "message.max.bytes": 4_000_000})
    failed = []
    for number in range(300):
        value = None if number % 7 == 0 else f"{codec}-{number}".encode()
        producer.produce("rd", key=f"{codec}-{number}".encode(), value=value, headers=[("h", codec.encode()), ("empty", None)],
                         timestamp=1_000_000 + number, on_delivery=lambda error, _: error and failed.append(error))
        expected.add(f"{codec}-{number}")
    producer.produce("rd", key=f"{codec}-large".encode(), value=large, headers=[("h", codec.encode()), ("empty", None)],
                     timestamp=2_000_000)
    expected.add(f"{codec}-large")
    assert producer.flush(60) == 0 and not failed, failed

first = consumer("rd-group")
first.subscribe(["rd"])
seen = {}
for message in take(first, len(expected)):
    seen[message.key().decode()] = message
assert set(seen) == expected
for key, message in seen.items():
    codec, number = key.split("-")
    assert message.headers() == [("h", codec.encode()), ("empty", None)]
    if number == "large":
        assert message.value() == large and message.timestamp()[1] == 2_000_000
    else:
        assert message.value() == (None if int(number) % 7 == 0 else key.encode())
        assert message.timestamp()[1] == 1_000_000 + int(number)
first.commit(asynchronous=False)

# The group grows and shrinks.
second = consumer("rd-group")
second.subscribe(["rd"])
end = time.time() + 60
while not (first.assignment() and second.assignment() and len(first.assignment()) + len(second.assignment()) == 3):
    assert time.time() < end, (first.assignment(), second.assignment())
    assert first.poll(0.2) is None and second.poll(0.2) is None, "committed records came again"
group = admin.describe_consumer_groups(["rd-group"])["rd-group"].result(30)
assert len(group.members) == 2 and group.state.name == "STABLE", group
assert sum(len(member.assignment.topic_partitions) for member in group.members) == 3
first.close()
end = time.time() + 60
while len(second.assignment()) != 3:
    assert time.time() < end
    assert second.poll(0.2) is None
positions = second.committed([TopicPartition("rd", part) for part in range(3)], 30)
assert sum(position.offset for position in positions) == len(expected)
second.commit(offsets=[TopicPartition("rd", 0, 1, metadata="note")], asynchronous=False)
back = second.committed([TopicPartition("rd", 0)], 30)[0]
assert (back.offset, back.metadata) == (1, "note"), back
second.close()

# Seeks by time, and the ends of partitions.
seeker = consumer("rd-seeker")
for place in seeker.offsets_for_times([TopicPartition("rd", part, 2_000_000) for part in range(3)], 30):
    low, high = seeker.get_watermark_offsets(TopicPartition("rd", place.partition), 30)
    assert low == 0 and (place.offset == -1 or place.offset <= high)
    if 0 <= place.offset < high:
        seeker.assign([TopicPartition("rd", place.partition, place.offset)])
        assert take(seeker, 1)[0].timestamp()[1] == 2_000_000
seeker.close()

# Administration.
done(admin.create_partitions([NewPartitions("rd", 5)], operation_timeout=30))
assert len(admin.list_topics("rd", 30).topics["rd"].partitions) == 5
resource = ConfigResource(ResourceType.TOPIC, "rd")
configs = list(admin.describe_configs([resource]).values())[0].result(30)
assert configs["retention.ms"].value == "3600000" and configs["cleanup.policy"].value == "delete"
resource.add_incremental_config(ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET))
done(admin.incremental_alter_configs([resource]))
configs = list(admin.describe_configs([ConfigResource(ResourceType.TOPIC, "rd")]).values())[0].result(30)
assert configs["retention.ms"].value == "7200000"
assert list(admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]).values())[0].result(30)["num.partitions"]
assert "rd-group" in [group.group_id for group in admin.list_consumer_groups().result(30).valid]
deleted = list(admin.delete_records([TopicPartition("rd", 0, 2)]).values())[0].result(30)
assert deleted.low_watermark == 2
cluster = admin.describe_cluster().result(30)
assert [node.id for node in cluster.nodes] == [1]
done(admin.delete_consumer_groups(["rd-group"]))
try:
    done(admin.create_topics([NewTopic("rd", 1, 1)]))
    raise AssertionError("created twice")
except KafkaException as error:
    assert error.args[0].name() == "TOPIC_ALREADY_EXISTS"
done(admin.delete_topics(["rd"], operation_timeout=30))
print("ok")
