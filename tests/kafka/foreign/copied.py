"""What was copied is there in order, each record once. Arguments: address, how many records; `fill` first writes them."""

import sys
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

address, count = sys.argv[1], int(sys.argv[2])
base = {"bootstrap.servers": address}
if len(sys.argv) > 3:
    admin = AdminClient(base)
    for future in admin.create_topics([NewTopic("in", 1, 1), NewTopic("out", 1, 1)]).values():
        future.result(30)
    writer = Producer({**base, "enable.idempotence": True})
    for number in range(count):
        writer.produce("in", value=f"{number}", partition=0)
    assert writer.flush(60) == 0
else:
    reader = Consumer({**base, "group.id": "check", "enable.auto.commit": False, "isolation.level": "read_committed",
                       "enable.partition.eof": True})
    reader.assign([TopicPartition("out", 0, 0)])
    got = []
    while True:
        message = reader.poll(30)
        assert message is not None, f"{len(got)} of {count}"
        if message.error():
            break
        got.append(int(message.value()))
    assert got == list(range(count)), (len(got), [at for at, number in enumerate(got) if at != number][:3])
print("ok")
