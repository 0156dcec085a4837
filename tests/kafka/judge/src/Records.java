import java.util.List;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.record.internal.MemoryRecords;

/** Produce, and what shows where its records lie: ListOffsets, OffsetForLeaderEpoch, DeleteRecords. */
final class Records {
    private Records() {}

    /** One batch to one partition. */
    static String produce(String topic, String batch, String more) {
        return "{acks:-1, timeoutMs:5000, topicData:[{name:'" + topic + "', topicId:'$id:" + topic + "', partitionData:[{index:0, records:'$"
            + batch + "'}]}]" + more + "}";
    }

    static void run(Judge judge) throws Exception {
        bad(judge);
        for (short v : judge.versions(ApiKeys.PRODUCE)) {
            produced(judge, v);
            idempotent(judge, v);
        }
        offsets(judge);
        deleted(judge);
        epochs(judge);
    }

    /** Batches that are good and that are not. */
    private static void bad(Judge judge) throws Exception {
        long base = judge.base;
        MemoryRecords good = Batches.plain(base, "one", "two", null);
        judge.variable("good", good);
        for (String codec : List.of("gzip", "snappy", "lz4", "zstd")) {
            judge.variable(codec, Batches.compressed(codec, base, "one".repeat(50), "two".repeat(50), "three"));
        }
        judge.variable("empty", Batches.empty());
        judge.variable("two", Batches.two(good, Batches.plain(base + 10, "four")));
        judge.variable("damaged", Batches.changed(good, good.sizeInBytes() - 3, 99));
        judge.variable("cut", Batches.cut(good, 5));
        judge.variable("short", Batches.cut(good, good.sizeInBytes() - 20));
        judge.variable("magic1", Batches.old(1, base));
        judge.variable("magic0", Batches.old(0, base));
        judge.variable("magic9", Batches.forged(good, 16, 9));
        // The low byte of the attributes is at 22: the codec, the kind of time, transactional, control.
        judge.variable("codec7", Batches.forged(good, 22, 7));
        judge.variable("wrongcodec", Batches.forged(good, 22, 1));
        judge.variable("append", Batches.forged(good, 22, 8));
        judge.variable("transactional", Batches.forged(good, 22, 16));
        judge.variable("control", Batches.forged(good, 22, 32));
        judge.variable("delta", Batches.forged(good, 26, 7));
        judge.variable("count", Batches.forged(good, 60, 7));
        judge.variable("nocount", Batches.forged(Batches.forged(good, 60, 0), 26, 0));
        judge.variable("offset", Batches.changed(good, 7, 42));
        judge.variable("large", Batches.plain(base, "x".repeat(1_100_000)));
        judge.variable("future", Batches.plain(System.currentTimeMillis() + 7_200_000, "f"));
        judge.variable("past", Batches.plain(1, "p"));
        judge.variable("negative", Batches.plain(-1, "n"));
        judge.variable("keyless", Batches.keyless(base, 4));
    }

    private static void produced(Judge judge, short v) throws Exception {
        String t = "produced-v" + v;
        String[] batches = {"good", "gzip", "snappy", "lz4", "zstd", "empty", "two", "damaged", "cut", "short", "magic1", "magic0",
            "magic9", "codec7", "wrongcodec", "append", "transactional", "control", "delta", "count", "nocount", "offset", "large", "future", "past", "negative"};
        judge.topic(t, batches.length + 2, "");
        // Each to a partition of its own, so that one that only one of them takes does not move the others.
        StringBuilder ends = new StringBuilder();
        StringBuilder all = new StringBuilder();
        for (int at = 0; at < batches.length; at++) {
            judge.ask("a batch: " + batches[at], ApiKeys.PRODUCE, v, produce(t, batches[at], "").replace("index:0", "index:" + (at + 2)));
            ends.append("{partitionIndex:").append(at + 2).append(",timestamp:-1},");
            all.append("{partition:").append(at + 2).append(",partitionMaxBytes:50000000},");
        }
        judge.ask("acks 1", ApiKeys.PRODUCE, v, produce(t, "good", "").replace("acks:-1", "acks:1"));
        judge.ask("acks 2", ApiKeys.PRODUCE, v, produce(t, "good", "").replace("acks:-1", "acks:2"));
        judge.ask("acks -2", ApiKeys.PRODUCE, v, produce(t, "good", "").replace("acks:-1", "acks:-2"));
        if (v < 13) {
            judge.ask("to an unknown topic", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{name:'nowhere', partitionData:[{index:0, records:'$good'}]}]}");
            judge.ask("to a bad name", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{name:'a b', partitionData:[{index:0, records:'$good'}]}]}");
            judge.ask("without a name", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{name:'', partitionData:[{index:0, records:'$good'}]}]}");
        } else {
            judge.ask("to an unknown id", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{topicId:'$none', partitionData:[{index:0, records:'$good'}]}]}");
            judge.ask("to no id", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{topicId:'$zero', partitionData:[{index:0, records:'$good'}]}]}");
        }
        judge.ask("to a partition that is not there", ApiKeys.PRODUCE, v, produce(t, "good", "").replace("index:0", "index:99"));
        judge.ask("to partition -1", ApiKeys.PRODUCE, v, produce(t, "good", "").replace("index:0", "index:-1"));
        judge.ask("no topic", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[]}");
        judge.ask("no partition", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{name:'" + t + "', topicId:'$id:" + t + "', partitionData:[]}]}");
        judge.ask("to two partitions, one not there", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{name:'" + t + "', topicId:'$id:" + t
            + "', partitionData:[{index:1, records:'$good'},{index:99, records:'$good'}]}]}");
        judge.ask("to one partition twice", ApiKeys.PRODUCE, v, "{acks:-1, timeoutMs:5000, topicData:[{name:'" + t + "', topicId:'$id:" + t
            + "', partitionData:[{index:1, records:'$good'},{index:1, records:'$good'}]}]}");
        judge.ask("with a transactional id, outside of a transaction", ApiKeys.PRODUCE, v, produce(t, "good", ", transactionalId:'t'"));
        // What is there after all this.
        judge.ask("after produce, end", ApiKeys.LIST_OFFSETS, 7, "{replicaId:-1, topics:[{name:'" + t + "', partitions:[" + ends + "{partitionIndex:0,timestamp:-1},{partitionIndex:1,timestamp:-1}]}]}");
        judge.ask("after produce", ApiKeys.FETCH, 12, "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:50000000, sessionEpoch:-1, topics:[{topic:'" + t
            + "', partitions:[" + all + "{partition:0,partitionMaxBytes:50000000},{partition:1,partitionMaxBytes:50000000}]}]}");
        judge.topic("compact-v" + v, 1, "{name:'cleanup.policy',value:'compact'}");
        judge.ask("without keys to a compacted topic", ApiKeys.PRODUCE, v, produce("compact-v" + v, "keyless", ""));
        judge.ask("with keys to a compacted topic", ApiKeys.PRODUCE, v, produce("compact-v" + v, "good", ""));
        judge.topic("small-v" + v, 1, "{name:'max.message.bytes',value:'10000'}");
        judge.variable("larger", Batches.plain(judge.base, "x".repeat(15000)));
        judge.ask("larger than max.message.bytes", ApiKeys.PRODUCE, v, produce("small-v" + v, "larger", ""));
        if (!judge.topic("now-v" + v, 1, "{name:'message.timestamp.type',value:'LogAppendTime'}")) {
            return;
        }
        judge.ask("to a topic of append time", ApiKeys.PRODUCE, v, produce("now-v" + v, "good", ""));
        judge.ask("to a topic of append time, compressed", ApiKeys.PRODUCE, v, produce("now-v" + v, "gzip", ""));
        judge.ask("after produce with append time", ApiKeys.FETCH, 12, "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:50000000, sessionEpoch:-1, topics:[{topic:'now-v"
            + v + "', partitions:[{partition:0,partitionMaxBytes:50000000}]}]}");
    }

    private static void idempotent(Judge judge, short v) throws Exception {
        String t = "once-v" + v;
        judge.topic(t, 1, "");
        judge.save("once", judge.prepare(ApiKeys.INIT_PRODUCER_ID, 4, "{transactionalId:null, transactionTimeoutMs:60000}"), "/producerId");
        Object[][] batches = {
            {"first", 0, 0, 2}, {"second", 0, 2, 1}, {"first, again", 0, 0, 2}, {"second, again", 0, 2, 1}, {"with a gap", 0, 9, 1},
            {"overlapping", 0, 1, 2}, {"of a newer epoch, not from 0", 1, 5, 1}, {"of a newer epoch", 1, 0, 1}, {"of an older epoch", 0, 3, 1},
            {"next", 1, 1, 1},
        };
        for (Object[] one : batches) {
            for (Server server : List.of(judge.kafka, judge.tidelog)) {
                String[] values = {"a", "b"};
                server.variables.put("next", Batches.idempotent(judge.base, (Long) server.variables.get("once"), (Integer) one[1], (Integer) one[2],
                    (Integer) one[3] == 2 ? values : new String[] {"a"}));
            }
            judge.ask("idempotent: " + one[0], ApiKeys.PRODUCE, v, produce(t, "next", ""));
        }
        judge.variable("next", Batches.idempotent(judge.base, 999_999, 0, 0, "a"));
        judge.ask("idempotent: of a producer that the server did not name", ApiKeys.PRODUCE, v, produce(t, "next", ""));
        judge.variable("next", Batches.idempotent(judge.base, 999_998, 0, 5, "a"));
        judge.ask("idempotent: of such a producer, not from 0", ApiKeys.PRODUCE, v, produce(t, "next", ""));
        judge.ask("after idempotent produce", ApiKeys.FETCH, 12, "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:50000000, sessionEpoch:-1, topics:[{topic:'"
            + t + "', partitions:[{partition:0,partitionMaxBytes:50000000}]}]}");
        judge.ask("after idempotent produce", ApiKeys.DESCRIBE_PRODUCERS, 0, "{topics:[{name:'" + t + "', partitionIndexes:[0]}]}");
    }

    private static void offsets(Judge judge) throws Exception {
        judge.topic("timed", 2, "");
        judge.variable("later", Batches.plain(judge.base + 1000, "d", "e", "f"));
        judge.variable("earlier", Batches.plain(judge.base + 500, "g"));
        for (String batch : List.of("good", "later", "earlier", "gzip")) {
            judge.prepare(ApiKeys.PRODUCE, 9, produce("timed", batch, ""));
        }
        for (short v : judge.versions(ApiKeys.LIST_OFFSETS)) {
            for (long time : new long[] {-1, -2, -3, -4, -5, -6, -10, 0, 1, judge.base, judge.base + 1, judge.base + 2, judge.base + 500,
                judge.base + 600, judge.base + 1001, judge.base + 1002, judge.base + 1003, Long.MAX_VALUE}) {
                long said = time >= judge.base && time < Long.MAX_VALUE ? time - judge.base : time;
                judge.ask("at " + (time == said ? "" + time : "the first time and " + said), ApiKeys.LIST_OFFSETS, v,
                    "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:" + time + "}]}]}");
            }
            String[] more = {
                "of an empty partition, end", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:1,timestamp:-1}]}]}",
                "of an empty partition, begin", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:1,timestamp:-2}]}]}",
                "of an empty partition, by time", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:1,timestamp:5}]}]}",
                "of an empty partition, the latest time", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:1,timestamp:-3}]}]}",
                "of a partition that is not there", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:9,timestamp:-1}]}]}",
                "of an unknown topic", "{replicaId:-1, topics:[{name:'nowhere', partitions:[{partitionIndex:0,timestamp:-1}]}]}",
                "of a bad name", "{replicaId:-1, topics:[{name:'a b', partitions:[{partitionIndex:0,timestamp:-1}]}]}",
                "twice the same", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:-1},{partitionIndex:0,timestamp:-2}]}]}",
                "one topic twice", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:-1}]},{name:'timed', partitions:[{partitionIndex:1,timestamp:-1}]}]}",
                "no topic", "{replicaId:-1, topics:[]}",
                "no partition", "{replicaId:-1, topics:[{name:'timed', partitions:[]}]}",
                "committed", "{replicaId:-1, isolationLevel:1, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:-1}]}]}",
                "of an unknown isolation", "{replicaId:-1, isolationLevel:7, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:-1}]}]}",
                "of the right epoch", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:0,currentLeaderEpoch:0,timestamp:-1}]}]}",
                "of a newer epoch", "{replicaId:-1, topics:[{name:'timed', partitions:[{partitionIndex:0,currentLeaderEpoch:5,timestamp:-1}]}]}",
                "of a replica", "{replicaId:%, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:-1}]}]}",
                "of a debugger", "{replicaId:-2, topics:[{name:'timed', partitions:[{partitionIndex:0,timestamp:-1}]}]}",
            };
            for (int at = 0; at < more.length; at += 2) {
                judge.ask(more[at], ApiKeys.LIST_OFFSETS, v, more[at + 1]);
            }
        }
    }

    private static void deleted(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.DELETE_RECORDS)) {
            String t = "shortened-v" + v;
            judge.topic(t, 2, "");
            judge.topic("kept-v" + v, 1, "{name:'cleanup.policy',value:'compact'}");
            judge.prepare(ApiKeys.PRODUCE, 9, produce(t, "good", ""));
            judge.prepare(ApiKeys.PRODUCE, 9, produce(t, "good", ""));
            judge.prepare(ApiKeys.PRODUCE, 9, produce("kept-v" + v, "good", ""));
            String[][] asked = {
                {"up to 2", t, "0", "2"}, {"up to what is gone", t, "0", "1"}, {"up to 2 again", t, "0", "2"}, {"beyond the end", t, "0", "99"},
                {"up to -2", t, "0", "-2"}, {"up to the end", t, "0", "-1"}, {"of an empty partition", t, "1", "0"}, {"of an empty partition, all", t, "1", "-1"},
                {"of a partition that is not there", t, "9", "0"}, {"of an unknown topic", "nowhere", "0", "0"}, {"of a bad name", "a b", "0", "0"},
                {"of a compacted topic", "kept-v" + v, "0", "1"},
            };
            for (String[] one : asked) {
                judge.ask(one[0], ApiKeys.DELETE_RECORDS, v, "{timeoutMs:5000, topics:[{name:'" + one[1] + "', partitions:[{partitionIndex:" + one[2]
                    + ",offset:" + one[3] + "}]}]}");
            }
            judge.ask("twice the same", ApiKeys.DELETE_RECORDS, v, "{timeoutMs:5000, topics:[{name:'" + t
                + "', partitions:[{partitionIndex:0,offset:3},{partitionIndex:0,offset:4}]}]}");
            judge.ask("no topic", ApiKeys.DELETE_RECORDS, v, "{timeoutMs:5000, topics:[]}");
            judge.ask("after deletion", ApiKeys.LIST_OFFSETS, 7, "{replicaId:-1, topics:[{name:'" + t + "', partitions:[{partitionIndex:0,timestamp:-2}]}]}");
            judge.ask("after deletion, by time", ApiKeys.LIST_OFFSETS, 7, "{replicaId:-1, topics:[{name:'" + t + "', partitions:[{partitionIndex:0,timestamp:1}]}]}");
            judge.ask("below the begin", ApiKeys.FETCH, 12, "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:1000000, sessionEpoch:-1, topics:[{topic:'"
                + t + "', partitions:[{partition:0,fetchOffset:0,partitionMaxBytes:1000000}]}]}");
        }
    }

    private static void epochs(Judge judge) throws Exception {
        String one = "{replicaId:-1, topics:[{topic:'timed', partitions:[{partition:0,";
        judge.each(ApiKeys.OFFSET_FOR_LEADER_EPOCH,
            "epoch 0", one + "leaderEpoch:0}]}]}",
            "epoch 5", one + "leaderEpoch:5}]}]}",
            "epoch -1", one + "leaderEpoch:-1}]}]}",
            "of the right leader epoch", one + "currentLeaderEpoch:0,leaderEpoch:0}]}]}",
            "of a newer leader epoch", one + "currentLeaderEpoch:5,leaderEpoch:0}]}]}",
            "of an empty partition", "{replicaId:-1, topics:[{topic:'timed', partitions:[{partition:1,leaderEpoch:0}]}]}",
            "of a partition that is not there", "{replicaId:-1, topics:[{topic:'timed', partitions:[{partition:9,leaderEpoch:0}]}]}",
            "of an unknown topic", "{replicaId:-1, topics:[{topic:'nowhere', partitions:[{partition:0,leaderEpoch:0}]}]}",
            "twice the same", "{replicaId:-1, topics:[{topic:'timed', partitions:[{partition:0,leaderEpoch:0},{partition:0,leaderEpoch:5}]}]}",
            "of a replica", "{replicaId:%, topics:[{topic:'timed', partitions:[{partition:0,leaderEpoch:0}]}]}",
            "no topic", "{replicaId:-1, topics:[]}");
        judge.each(ApiKeys.DESCRIBE_PRODUCERS,
            "none", "{topics:[{name:'timed', partitionIndexes:[0]}]}",
            "of a partition that is not there", "{topics:[{name:'timed', partitionIndexes:[9,-1]}]}",
            "of an unknown topic", "{topics:[{name:'nowhere', partitionIndexes:[0]}]}",
            "of a bad name", "{topics:[{name:'a b', partitionIndexes:[0]}]}",
            "no topic", "{topics:[]}");
    }
}
