"""librdkafka by confluent-kafka. Arguments: address; and `cross` for records that cross between the doors, else groups,
positions, seeks by time and administration."""

import sys, time
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, AlterConfigOpType, ConfigEntry, ResourceType
from common import PATIENCE, cross, wait

address = sys.argv[1]
base = {"bootstrap.servers": address}


def done(futures):
    for future in futures.values():
        future.result(PATIENCE)


def consumer(group, **more):
    return Consumer({**base, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "heartbeat.interval.ms": 300, **more})


def take(reader, count):
    got = []
    end = time.time() + PATIENCE
    while len(got) < count and time.time() < end:
        message = reader.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            got.append(message)
    assert len(got) == count, f"{len(got)} of {count}"
    return got


def write(topic, codec, records):
    producer = Producer({**base, "compression.type": codec, "enable.idempotence": True, "message.max.bytes": 4_000_000,
                         "linger.ms": 100})
    failed = []
    for key, value, headers, timestamp in records:
        producer.produce(topic, key=key, value=value, headers=headers, timestamp=timestamp, partition=0,
                         on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(PATIENCE) == 0 and not failed, failed


def read(topic, count):
    reader = consumer("cross")
    reader.assign([TopicPartition(topic, 0, 0)])
    got = [(m.key(), m.value(), m.headers() or [], m.timestamp()[1]) for m in take(reader, count)]
    reader.close()
    return got


if sys.argv[2:] == ["cross"]:
    cross(write, read)
    sys.exit()

admin = AdminClient(base)
# Records of long ago: a bound on their age would let them go while this runs.
done(admin.create_topics([NewTopic("rd", 3, 1, config={"retention.bytes": "3600000000"})], operation_timeout=PATIENCE))
producer = Producer({**base, "enable.idempotence": True})
for number in range(600):
    producer.produce("rd", key=f"{number}", value=f"{number}", timestamp=1_000_000 + 1_000 * number)
assert producer.flush(PATIENCE) == 0
first = consumer("rd-group")
first.subscribe(["rd"])
assert {message.value().decode() for message in take(first, 600)} == {f"{number}" for number in range(600)}
first.commit(asynchronous=False)

# The group grows and shrinks.
second = consumer("rd-group")
second.subscribe(["rd"])


def shared():
    assert first.poll(0.1) is None and second.poll(0.1) is None, "committed records came again"
    return first.assignment() and second.assignment() and len(first.assignment()) + len(second.assignment()) == 3


wait(lambda: (first.assignment(), second.assignment()), shared)
group = admin.describe_consumer_groups(["rd-group"])["rd-group"].result(PATIENCE)
assert len(group.members) == 2 and group.state.name == "STABLE", group
assert sum(len(member.assignment.topic_partitions) for member in group.members) == 3
first.close()


def alone():
    assert second.poll(0.1) is None, "committed records came again"
    return len(second.assignment()) == 3


wait("the group does not shrink", alone)
positions = second.committed([TopicPartition("rd", part) for part in range(3)], PATIENCE)
assert sum(position.offset for position in positions) == 600
second.commit(offsets=[TopicPartition("rd", 0, 1, metadata="note")], asynchronous=False)
back = second.committed([TopicPartition("rd", 0)], PATIENCE)[0]
assert (back.offset, back.metadata) == (1, "note"), back

# Seeks by time, within the group, and the ends of partitions.
for place in second.offsets_for_times([TopicPartition("rd", part, 1_300_000) for part in range(3)], PATIENCE):
    low, high = second.get_watermark_offsets(TopicPartition("rd", place.partition), PATIENCE)
    assert low == 0 and 0 < place.offset < high, (low, place, high)
    second.seek(place)
assert all(message.timestamp()[1] >= 1_300_000 for message in take(second, 300))
later = second.offsets_for_times([TopicPartition("rd", 0, 9_000_000)], PATIENCE)[0]
# This client says -1, "the end", where there is nothing so late.
assert later.offset == -1, later
second.close()

# Administration.
done(admin.create_partitions([NewPartitions("rd", 5)], operation_timeout=PATIENCE))
assert len(admin.list_topics("rd", PATIENCE).topics["rd"].partitions) == 5
resource = ConfigResource(ResourceType.TOPIC, "rd")
configs = list(admin.describe_configs([resource]).values())[0].result(PATIENCE)
assert configs["retention.bytes"].value == "3600000000" and configs["cleanup.policy"].value == "delete"
resource.add_incremental_config(ConfigEntry("retention.bytes", "7200000000", incremental_operation=AlterConfigOpType.SET))
done(admin.incremental_alter_configs([resource]))
configs = list(admin.describe_configs([ConfigResource(ResourceType.TOPIC, "rd")]).values())[0].result(PATIENCE)
assert configs["retention.bytes"].value == "7200000000"
of_server = list(admin.describe_configs([ConfigResource(ResourceType.BROKER, "0")]).values())[0].result(PATIENCE)
assert of_server["num.partitions"]
assert "rd-group" in [group.group_id for group in admin.list_consumer_groups().result(PATIENCE).valid]
deleted = list(admin.delete_records([TopicPartition("rd", 0, 2)]).values())[0].result(PATIENCE)
assert deleted.low_watermark == 2
cluster = admin.describe_cluster().result(PATIENCE)
assert [node.id for node in cluster.nodes] == [0]
done(admin.delete_consumer_groups(["rd-group"]))
try:
    done(admin.create_topics([NewTopic("rd", 1, 1)]))
    raise AssertionError("created twice")
except KafkaException as error:
    assert error.args[0].name() == "TOPIC_ALREADY_EXISTS"
done(admin.delete_topics(["rd"], operation_timeout=PATIENCE))
print("ok")
