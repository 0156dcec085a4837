"""kafka-python, which speaks the newest versions. Arguments: address; and `cross` for records that cross between the doors,
else groups, positions, seeks by time and administration."""

import sys, time
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError
from common import PATIENCE, cross, wait

address = sys.argv[1]


def consumer(*topics, **more):
    return KafkaConsumer(*topics, bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False,
                         heartbeat_interval_ms=300, max_partition_fetch_bytes=4_000_000, **more)


def take(reader, count):
    got, end = [], time.time() + PATIENCE
    while len(got) < count:
        assert time.time() < end, f"{len(got)} of {count}"
        for records in reader.poll(10_000).values():
            got += records
    assert len(got) == count, f"{len(got)} of {count}"
    return got


def write(topic, codec, records):
    producer = KafkaProducer(bootstrap_servers=address, compression_type=None if codec == "none" else codec, acks="all",
                             max_request_size=4_000_000, linger_ms=100)
    sent = [producer.send(topic, key=key, value=value, headers=headers, timestamp_ms=timestamp, partition=0)
            for key, value, headers, timestamp in records]
    producer.flush(PATIENCE)
    assert [future.get(PATIENCE).offset for future in sent] == list(range(len(records)))
    producer.close()


def read(topic, count):
    reader = consumer()
    reader.assign([TopicPartition(topic, 0)])
    reader.seek_to_beginning()
    plain = lambda data: None if data is None else bytes(data)
    got = [(plain(record.key), plain(record.value), [(name, plain(value)) for name, value in record.headers], record.timestamp)
           for record in take(reader, count)]
    reader.close()
    return got


if sys.argv[2:] == ["cross"]:
    cross(write, read)
    sys.exit()

admin = KafkaAdminClient(bootstrap_servers=address)
# Records of long ago: a bound on their age would let them go while this runs.
admin.create_topics([NewTopic("kp", 2, 1, topic_configs={"retention.bytes": "3600000000"})])
producer = KafkaProducer(bootstrap_servers=address, acks="all")
for number in range(600):
    producer.send("kp", key=f"{number}".encode(), value=f"{number}".encode(), timestamp_ms=1_000_000 + 1_000 * number)
producer.flush(PATIENCE)
producer.close()
first = consumer("kp", group_id="kp-group")
assert {record.value.decode() for record in take(first, 600)} == {f"{number}" for number in range(600)}
first.commit()

# The group grows and shrinks.
second = consumer("kp", group_id="kp-group")


# Where a poll ends while this client joins, the next one joins anew: on a busy machine short ones never get through.
pause = 100


def nothing(reader):
    global pause
    pause = min(pause * 3 // 2, 10_000)
    return not reader.poll(pause)


def shared():
    assert nothing(first) and nothing(second), "committed records came again"
    return len(first.assignment()) == len(second.assignment()) == 1


wait(lambda: (first.assignment(), second.assignment()), shared)
group = admin.describe_groups(["kp-group"])["kp-group"]
assert group["group_state"] == "Stable" and len(group["members"]) == 2, group
first.close()


def alone():
    assert nothing(second), "committed records came again"
    return len(second.assignment()) == 2


pause = 100
wait(lambda: second.assignment(), alone)
places = [TopicPartition("kp", part) for part in range(2)]
assert sum(second.committed(place) for place in places) == 600
assert sum(second.end_offsets(places).values()) == 600 and sum(second.beginning_offsets(places).values()) == 0
second.commit({places[0]: OffsetAndMetadata(1, "note", -1)})
back = second.committed(places[0], metadata=True)
assert (back.offset, back.metadata) == (1, "note"), back

# A seek by time, within the group.
found = second.offsets_for_times({place: 1_300_000 for place in places})
for place, at in found.items():
    assert at.timestamp >= 1_300_000
    second.seek(place, at.offset)
assert all(record.timestamp >= 1_300_000 for record in take(second, 300))
assert second.offsets_for_times({places[0]: 9_000_000})[places[0]] is None
second.close()

# Administration.
assert "kp" in admin.list_topics()
cluster = admin.describe_cluster()
assert [node["broker_id"] for node in cluster["brokers"]] == [0], cluster
admin.create_partitions({"kp": NewPartitions(4)})
assert len(admin.describe_topics(["kp"])[0]["partitions"]) == 4
resource = lambda **configs: ConfigResource(ConfigResourceType.TOPIC, "kp", configs=configs or None)


def configs(of, name):
    described = admin.describe_configs([of], config_filter="all")
    return described[of.resource_type.name.lower()][of.name][name]["value"]


assert configs(resource(), "retention.bytes") == "3600000000" and configs(resource(), "cleanup.policy") == "delete"
admin.alter_configs([resource(**{"retention.bytes": "7200000000"})])
assert configs(resource(), "retention.bytes") == "7200000000"
assert configs(ConfigResource(ConfigResourceType.BROKER, "0"), "num.partitions")
assert "kp-group" in [group["group_id"] for group in admin.list_groups()]
positions = admin.list_group_offsets({"kp-group": None})["kp-group"]
assert positions[places[0]].offset == 1, positions
admin.delete_records({TopicPartition("kp", 0): 2})
admin.delete_groups(["kp-group"])
try:
    admin.create_topics([NewTopic("kp", 1, 1)])
    raise AssertionError("created twice")
except TopicAlreadyExistsError:
    pass
admin.delete_topics(["kp"])
assert "kp" not in admin.list_topics()
admin.close()
print("ok")
