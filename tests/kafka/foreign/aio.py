"""aiokafka, which speaks the older versions. Arguments: address; and `cross` for records that cross between the doors, else
groups, positions, seeks by time and administration."""

import asyncio, sys, time
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from common import PATIENCE, cross

address = sys.argv[1]


def consumer(*topics, **more):
    return AIOKafkaConsumer(*topics, bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False,
                            heartbeat_interval_ms=300, session_timeout_ms=60_000, max_partition_fetch_bytes=4_000_000, **more)


async def take(reader, count):
    return [await asyncio.wait_for(reader.getone(), PATIENCE) for _ in range(count)]


def write(topic, codec, records):
    async def run():
        async with AIOKafkaProducer(bootstrap_servers=address, compression_type=None if codec == "none" else codec,
                                    enable_idempotence=True, max_request_size=4_000_000, linger_ms=100) as producer:
            sent = [await producer.send(topic, value, key, headers=headers, timestamp_ms=timestamp, partition=0)
                    for key, value, headers, timestamp in records]
            assert [(await future).offset for future in sent] == list(range(len(records)))
    asyncio.run(run())


def read(topic, count):
    async def run():
        async with consumer() as reader:
            place = TopicPartition(topic, 0)
            reader.assign([place])
            reader.seek(place, 0)
            return [(record.key, record.value, record.headers, record.timestamp) for record in await take(reader, count)]
    return asyncio.run(run())


async def wait(what, check):
    end = time.time() + PATIENCE
    while not check():
        assert time.time() < end, what()
        await asyncio.sleep(0.05)


async def rest():
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    # Records of long ago: a bound on their age would let them go while this runs.
    await admin.create_topics([NewTopic("aio", 2, 1, topic_configs={"retention.bytes": "3600000000"})])
    async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True) as producer:
        for number in range(600):
            await producer.send("aio", f"{number}".encode(), f"{number}".encode(), timestamp_ms=1_000_000 + 1_000 * number)
    first = consumer("aio", group_id="aio-group")
    await first.start()
    assert {record.value.decode() for record in await take(first, 600)} == {f"{number}" for number in range(600)}
    await first.commit()

    # The group grows and shrinks.
    second = consumer("aio", group_id="aio-group")
    await second.start()
    await wait(lambda: (first.assignment(), second.assignment()),
               lambda: len(first.assignment()) == len(second.assignment()) == 1)
    await first.stop()
    await wait(lambda: second.assignment(), lambda: len(second.assignment()) == 2)
    assert not await second.getmany(timeout_ms=300), "committed records came again"
    places = [TopicPartition("aio", part) for part in range(2)]
    assert sum([await second.committed(place) for place in places]) == 600
    assert sum((await second.end_offsets(places)).values()) == 600
    await second.commit({places[0]: OffsetAndMetadata(1, "note")})
    back = (await admin.list_consumer_group_offsets("aio-group"))[places[0]]
    assert (back.offset, back.metadata) == (1, "note"), back

    # A seek by time, within the group.
    found = await second.offsets_for_times({place: 1_300_000 for place in places})
    for place, at in found.items():
        assert at.timestamp >= 1_300_000
        second.seek(place, at.offset)
    assert all(record.timestamp >= 1_300_000 for record in await take(second, 300))
    assert (await second.offsets_for_times({places[0]: 9_000_000}))[places[0]] is None
    await second.stop()

    # Administration. This client can neither delete groups nor alter settings one by one.
    assert "aio" in await admin.list_topics()
    cluster = await admin.describe_cluster()
    assert [node["node_id"] for node in cluster["brokers"]] == [0], cluster
    await admin.create_partitions({"aio": NewPartitions(4)})
    assert len((await admin.describe_topics(["aio"]))[0]["partitions"]) == 4

    async def configs(kind, of):
        answer = (await admin.describe_configs([ConfigResource(kind, of)]))[0]
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}

    of_topic = await configs(ConfigResourceType.TOPIC, "aio")
    assert of_topic["retention.bytes"] == "3600000000" and of_topic["cleanup.policy"] == "delete", of_topic
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "aio", configs={"retention.bytes": "7200000000"})])
    assert (await configs(ConfigResourceType.TOPIC, "aio"))["retention.bytes"] == "7200000000"
    assert (await configs(ConfigResourceType.BROKER, "0"))["num.partitions"]
    assert "aio-group" in [group[0] for group in await admin.list_consumer_groups()]
    described = await admin.describe_consumer_groups(["aio-group"])
    assert described[0].groups[0][1:3] == ("aio-group", "Empty"), described
    assert await admin.delete_records({places[0]: RecordsToDelete(before_offset=2)}) == {places[0]: 2}
    answer = await admin.create_topics([NewTopic("aio", 1, 1)])
    assert answer.topic_errors[0][:2] == ("aio", 36), answer
    await admin.delete_topics(["aio"])
    assert "aio" not in await admin.list_topics()
    await admin.close()


if sys.argv[2:] == ["cross"]:
    cross(write, read)
else:
    asyncio.run(rest())
    print("ok")
