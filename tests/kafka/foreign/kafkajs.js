// kafkajs, which speaks the older versions. Argument: address. Its zstd plugin is compiled for minutes, its lz4 plugins too or
// not to be had: lz4 is a plain JavaScript codec put in here, zstd is left out.
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require("kafkajs");
const lz4 = require("lz4js");

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

async function main() {
  const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: "js", numPartitions: 2 }], waitForLeaders: true });
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  const expected = new Set();
  for (const [name, compression] of Object.entries(CompressionTypes).filter(([name]) => name !== "ZSTD")) {
    const messages = [];
    for (let number = 0; number < 100; number++) {
      const key = `${name}-${number}`;
      messages.push({ key, value: number % 7 === 0 ? null : key, headers: { h: "v" }, timestamp: String(1000 + number) });
      expected.add(key);
    }
    await producer.send({ topic: "js", messages, compression });
    await producer.send({ topic: "js", compression, messages: [{ key: `${name}-large`, value: "x".repeat(1000000), timestamp: "5000" }] });
    expected.add(`${name}-large`);
  }
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: "js-group" });
  await consumer.connect();
  await consumer.subscribe({ topics: ["js"], fromBeginning: true });
  const seen = new Set();
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${seen.size} of ${expected.size}`)), 60000).unref();
    consumer.run({
      eachMessage: async ({ message }) => {
        const key = message.key.toString();
        const number = key.split("-")[1];
        const value = number === "large" ? "x".repeat(1000000) : number % 7 === 0 ? null : key;
        if ((message.value && message.value.toString()) !== value) reject(new Error(`another value of ${key}`));
        if (number !== "large" && message.headers.h.toString() !== "v") reject(new Error(`other headers of ${key}`));
        seen.add(key);
        if (seen.size === expected.size) resolve();
      },
    });
  });
  // The group grows and shrinks.
  const members = async (count) => {
    for (let round = 0; round < 300; round++) {
      const { groups } = await admin.describeGroups(["js-group"]);
      if (groups[0].state === "Stable" && groups[0].members.length === count) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    throw new Error(`the group never had ${count} members`);
  };
  const other = kafka.consumer({ groupId: "js-group" });
  await other.connect();
  await other.subscribe({ topics: ["js"] });
  await other.run({ eachMessage: async () => {} });
  await members(2);
  await other.disconnect();
  await members(1);
  await consumer.stop();
  await consumer.disconnect();
  const committed = await admin.fetchOffsets({ groupId: "js-group", topics: ["js"] });
  const sum = committed[0].partitions.reduce((sum, part) => sum + Math.max(0, Number(part.offset)), 0);
  if (sum !== expected.size) throw new Error(`committed ${sum} of ${expected.size}`);
  const byTime = await admin.fetchTopicOffsetsByTimestamp("js", 5000);
  if (!byTime.some((part) => Number(part.offset) >= 0)) throw new Error("nothing found by time");
  const groups = await admin.listGroups();
  if (!groups.groups.some((group) => group.groupId === "js-group")) throw new Error("the group is not listed");
  const configs = await admin.describeConfigs({ resources: [{ type: 2, name: "js" }], includeSynonyms: false });
  if (!configs.resources[0].configEntries.some((entry) => entry.configName === "cleanup.policy")) throw new Error("no cleanup.policy");
  await admin.deleteGroups(["js-group"]);
  await admin.deleteTopics({ topics: ["js"] });
  await admin.disconnect();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
