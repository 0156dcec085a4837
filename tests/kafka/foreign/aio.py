"""aiokafka, which speaks the older versions. Argument: address."""

import asyncio, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

address = sys.argv[1]


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("aio", 2, 1)])
    expected = set()
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        async with AIOKafkaProducer(bootstrap_servers=address, compression_type=codec, enable_idempotence=True,
                                    max_request_size=4_000_000) as producer:
            for number in range(100):
                key = f"{codec}-{number}"
                value = None if number % 7 == 0 else key.encode()
                await producer.send("aio", value, key.encode(), headers=[("h", b"v")], timestamp_ms=1_000 + number)
                expected.add(key)
            await producer.send_and_wait("aio", b"x" * 1_000_000, f"{codec}-large".encode(), timestamp_ms=5_000)
            expected.add(f"{codec}-large")

    def consumer():
        return AIOKafkaConsumer("aio", bootstrap_servers=address, group_id="aio-group", auto_offset_reset="earliest",
                                enable_auto_commit=False, max_partition_fetch_bytes=4_000_000)

    first, seen = consumer(), set()
    await first.start()
    while len(seen) < len(expected):
        record = await asyncio.wait_for(first.getone(), 60)
        seen.add(record.key.decode())
    assert seen == expected
    await first.commit()
    second = consumer()
    await second.start()
    for _ in range(300):
        await asyncio.sleep(0.1)
        if len(first.assignment()) == 1 and len(second.assignment()) == 1:
            break
    assert len(first.assignment()) == 1 and len(second.assignment()) == 1
    await first.stop()
    for _ in range(300):
        await asyncio.sleep(0.1)
        if len(second.assignment()) == 2:
            break
    places = [TopicPartition("aio", part) for part in range(2)]
    assert sum([await second.committed(place) for place in places]) == len(expected)
    found = await second.offsets_for_times({place: 5_000 for place in places})
    assert any(place and place.timestamp == 5_000 for place in found.values())
    await second.stop()
    assert "aio-group" in [group[0] for group in await admin.list_consumer_groups()]
    await admin.delete_topics(["aio"])
    await admin.close()


asyncio.run(main())
print("ok")
