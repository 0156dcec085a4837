// kafkajs, which speaks the older versions. Arguments: address; and `cross` for records that cross between the doors, else
// groups, positions, seeks by time and administration. Of its own it has only gzip. The zstd plugins made for it are compiled
// for minutes, the lz4 ones too or are not to be had: both are put in here from plain JavaScript and WebAssembly.
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require("kafkajs");
const lz4 = require("lz4js");
const zstd = require("@bokuweb/zstd-wasm");
const assert = require("assert");

const PATIENCE = 120000;
CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  // A frame need not say how much is in it.
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer, { defaultHeapSize: 16 << 20 })),
});
const CODECS = { none: "None", gzip: "GZIP", snappy: "Snappy", lz4: "LZ4", zstd: "ZSTD" };

const patient = { connectionTimeout: PATIENCE, requestTimeout: PATIENCE };
const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR, ...patient });

async function wait(what, check) {
  const end = Date.now() + PATIENCE;
  while (!(await check())) {
    if (Date.now() > end) throw new Error(what());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// A consumer at work, and what it has got. Between groups and rounds this client waits as long as it is told.
async function reader(groupId, topics, more = {}) {
  const consumer = kafka.consumer({ groupId, heartbeatInterval: 300, maxWaitTimeInMs: 200, retry: { initialRetryTime: 50 }, ...more });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  const got = [];
  await consumer.run({ eachMessage: async ({ topic, partition, message }) => void got.push({ topic, partition, ...message }) });
  return { consumer, got };
}

// Records as the test that judges them writes them. Headers are an object here: names keep their order, and each its values.
const bytes = (text) => (text === null ? null : Buffer.from(text, "base64"));
const shown = (data) => (data === null ? null : Buffer.from(data).toString("base64"));

async function cross() {
  const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const messages = asked.theirs.map((record) => {
    const headers = {};
    for (const [name, value] of record.headers) (headers[name] ??= []).push(bytes(value));
    return { key: bytes(record.key), value: bytes(record.value), headers, timestamp: String(record.timestamp), partition: 0 };
  });
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  for (const [codec, name] of Object.entries(CODECS)) {
    await producer.send({ topic: `theirs.${codec}`, messages, compression: CompressionTypes[name] });
  }
  await producer.disconnect();
  const topics = Object.keys(CODECS).flatMap((codec) => [`theirs.${codec}`, `native.${codec}`]);
  const { consumer, got } = await reader("js-cross", topics);
  const count = Object.keys(CODECS).length * (messages.length + asked.native);
  await wait(() => `${got.length} of ${count}`, () => got.length >= count);
  await consumer.disconnect();
  for (const { topic, key, value, headers, timestamp } of got) {
    const pairs = Object.entries(headers).flatMap(([name, values]) => [values].flat().map((value) => [name, shown(value)]));
    console.log(JSON.stringify({ topic, key: shown(key), value: shown(value), headers: pairs, timestamp: Number(timestamp) }));
  }
}

async function rest() {
  const admin = kafka.admin();
  await admin.connect();
  // Records of long ago: a bound on their age would let them go while this runs.
  const configEntries = [{ name: "retention.bytes", value: "3600000000" }];
  await admin.createTopics({ topics: [{ topic: "js", numPartitions: 2, configEntries }], waitForLeaders: true });
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  const number = (index) => ({ key: `${index}`, value: `${index}`, timestamp: String(1000000 + 1000 * index) });
  await producer.send({ topic: "js", messages: Array.from({ length: 600 }, (_, index) => number(index)) });
  await producer.disconnect();

  // The group grows and shrinks.
  const first = await reader("js-group", ["js"]);
  await wait(() => `${first.got.length} of 600`, () => first.got.length >= 600);
  assert.deepStrictEqual(new Set(first.got.map(({ value }) => value.toString())).size, 600);
  await first.consumer.commitOffsets([0, 1].map((partition) => ({
    topic: "js", partition, offset: String(first.got.filter((record) => record.partition === partition).length),
  })));
  const members = (count) =>
    wait(() => `the group never had ${count} members`, async () => {
      const { groups } = await admin.describeGroups(["js-group"]);
      return groups[0].state === "Stable" && groups[0].members.length === count;
    });
  const second = await reader("js-group", ["js"]);
  await members(2);
  await first.consumer.disconnect();
  await members(1);
  assert.strictEqual(first.got.length, 600, "committed records came again");
  assert.strictEqual(second.got.length, 0, "committed records came again");
  const committed = async () => (await admin.fetchOffsets({ groupId: "js-group", topics: ["js"] }))[0].partitions;
  assert.strictEqual((await committed()).reduce((sum, part) => sum + Number(part.offset), 0), 600);

  // A seek by time, within the group.
  const found = await admin.fetchTopicOffsetsByTimestamp("js", 1300000);
  for (const { partition, offset } of found) second.consumer.seek({ topic: "js", partition, offset });
  await wait(() => `${second.got.length} of 300`, () => second.got.length >= 300);
  assert.strictEqual(second.got.length, 300);
  assert(second.got.every(({ timestamp }) => Number(timestamp) >= 1300000));
  await second.consumer.commitOffsets([{ topic: "js", partition: 0, offset: "1", metadata: "note" }]);
  await second.consumer.disconnect();
  const note = (await committed()).find(({ partition }) => partition === 0);
  assert.deepStrictEqual([note.offset, note.metadata], ["1", "note"]);

  // Administration. This client cannot alter settings one by one.
  assert((await admin.listTopics()).includes("js"));
  const cluster = await admin.describeCluster();
  assert.deepStrictEqual([cluster.brokers.map(({ nodeId }) => nodeId), cluster.controller], [[0], 0]);
  await admin.createPartitions({ topicPartitions: [{ topic: "js", count: 4 }] });
  assert.strictEqual((await admin.fetchTopicMetadata({ topics: ["js"] })).topics[0].partitions.length, 4);
  const config = async (type, name, wanted) => {
    const configs = await admin.describeConfigs({ resources: [{ type, name }], includeSynonyms: false });
    return configs.resources[0].configEntries.find((entry) => entry.configName === wanted).configValue;
  };
  assert.strictEqual(await config(2, "js", "retention.bytes"), "3600000000");
  assert.strictEqual(await config(2, "js", "cleanup.policy"), "delete");
  const altered = { type: 2, name: "js", configEntries: [{ name: "retention.bytes", value: "7200000000" }] };
  await admin.alterConfigs({ validateOnly: false, resources: [altered] });
  assert.strictEqual(await config(2, "js", "retention.bytes"), "7200000000");
  assert(await config(4, "0", "num.partitions"));
  await admin.setOffsets({ groupId: "js-group", topic: "js", partitions: [{ partition: 1, offset: "7" }] });
  assert.strictEqual((await committed()).find(({ partition }) => partition === 1).offset, "7");
  assert((await admin.listGroups()).groups.some(({ groupId }) => groupId === "js-group"));
  await admin.deleteTopicRecords({ topic: "js", partitions: [{ partition: 0, offset: "2" }] });
  const ends = await admin.fetchTopicOffsets("js");
  assert.strictEqual(ends.find(({ partition }) => partition === 0).low, "2");
  await admin.deleteGroups(["js-group"]);
  assert.strictEqual(await admin.createTopics({ topics: [{ topic: "js" }] }), false, "created twice");
  await admin.deleteTopics({ topics: ["js"] });
  assert(!(await admin.listTopics()).includes("js"));
  await admin.disconnect();
  console.log("ok");
}

const work = process.argv[3] === "cross" ? cross : rest;
zstd.init().then(work).catch((error) => {
  console.error(error);
  process.exit(1);
});
