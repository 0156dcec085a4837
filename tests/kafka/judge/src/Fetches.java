import org.apache.kafka.common.protocol.ApiKeys;

/** Fetch, with sessions and without. */
final class Fetches {
    private Fetches() {}

    private static String fetch(String head, String topic, String partitions) {
        return "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:1000000, " + head + ", topics:[{topic:'" + topic + "', topicId:'$id:" + topic
            + "', partitions:[" + partitions + "]}]}";
    }

    static void run(Judge judge) throws Exception {
        judge.variable("id:nowhere", "AAAAAAAAAAAAAAAAAAAAAQ");
        judge.variable("one", Batches.plain(judge.base, "a", "b"));
        judge.topic("fetched", 3, "");
        judge.prepare(ApiKeys.PRODUCE, 9, Records.produce("fetched", "one", ""));
        for (String codec : new String[] {"gzip", "snappy", "lz4", "zstd"}) {
            judge.variable("packed", Batches.compressed(codec, judge.base + 10, "c".repeat(300), "d"));
            judge.prepare(ApiKeys.PRODUCE, 9, Records.produce("fetched", "packed", ""));
        }
        judge.prepare(ApiKeys.PRODUCE, 9, Records.produce("fetched", "one", "").replace("index:0", "index:1"));
        String all = "partition:0,partitionMaxBytes:1000000";
        for (short v : judge.versions(ApiKeys.FETCH)) {
            String none = v < 7 ? "isolationLevel:0" : "sessionEpoch:-1";
            String[] asked = {
                "from the begin", fetch(none, "fetched", "{" + all + ",fetchOffset:0}"),
                "from within a batch", fetch(none, "fetched", "{" + all + ",fetchOffset:1}"),
                "from within a compressed batch", fetch(none, "fetched", "{" + all + ",fetchOffset:5}"),
                "from the end", fetch(none, "fetched", "{" + all + ",fetchOffset:10}"),
                "beyond the end", fetch(none, "fetched", "{" + all + ",fetchOffset:11}"),
                "from -1", fetch(none, "fetched", "{" + all + ",fetchOffset:-1}"),
                "an empty partition", fetch(none, "fetched", "{partition:2,partitionMaxBytes:1000000,fetchOffset:0}"),
                "a partition that is not there", fetch(none, "fetched", "{partition:9,partitionMaxBytes:1000000,fetchOffset:0}"),
                "an unknown topic", fetch(none, "nowhere", "{" + all + ",fetchOffset:0}"),
                "two partitions", fetch(none, "fetched", "{" + all + "},{partition:1,partitionMaxBytes:1000000}"),
                "one partition twice", fetch(none, "fetched", "{" + all + "},{" + all + ",fetchOffset:2}"),
                "committed", fetch(none, "fetched", "{" + all + "}").replace("maxWaitMs:0", "isolationLevel:1, maxWaitMs:0").replace("isolationLevel:0, topics", "topics"),
                "1 byte of a partition", fetch(none, "fetched", "{partition:0,partitionMaxBytes:1,fetchOffset:0}"),
                "0 bytes of a partition", fetch(none, "fetched", "{partition:0,partitionMaxBytes:0,fetchOffset:0}"),
                "1 byte of all", fetch(none, "fetched", "{" + all + "},{partition:1,partitionMaxBytes:1000000}").replace("maxBytes:1000000,", "maxBytes:1,"),
                "0 bytes of all", fetch(none, "fetched", "{" + all + "}").replace("maxBytes:1000000,", "maxBytes:0,"),
                "at the end, waiting", fetch(none, "fetched", "{" + all + ",fetchOffset:10}").replace("maxWaitMs:0, minBytes:0", "maxWaitMs:200, minBytes:1"),
                "more than there is, waiting", fetch(none, "fetched", "{" + all + "}").replace("maxWaitMs:0, minBytes:0", "maxWaitMs:200, minBytes:500000"),
                "no topic", "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:1000000, " + none + ", topics:[]}",
                "of the right epoch", fetch(none, "fetched", "{" + all + ",currentLeaderEpoch:0}"),
                "of a newer epoch", fetch(none, "fetched", "{" + all + ",currentLeaderEpoch:5}"),
                "of the right epoch before", fetch(none, "fetched", "{" + all + ",lastFetchedEpoch:0,fetchOffset:2}"),
                "of a newer epoch before", fetch(none, "fetched", "{" + all + ",lastFetchedEpoch:5,fetchOffset:2}"),
                "with an unknown isolation", fetch(none.replace("isolationLevel:0", "minBytes:0") + ", isolationLevel:7", "fetched", "{" + all + "}"),
                "of a rack", fetch(none + ", rackId:'r'", "fetched", "{" + all + "}"),
                "without an id", fetch(none, "fetched", "{" + all + "}").replaceAll("topicId:'[^']*'", "topicId:'\\$zero'"),
                "of a debugger", fetch(none, "fetched", "{" + all + "}").replace("replicaId:-1", v < 15 ? "replicaId:-2" : "replicaState:{replicaId:-2}"),
            };
            for (int at = 0; at < asked.length; at += 2) {
                judge.ask(asked[at], ApiKeys.FETCH, v, v < 15 ? asked[at + 1] : asked[at + 1].replace("replicaId:-1, ", ""));
            }
            if (v >= 7) {
                sessions(judge, v, all);
            }
        }
    }

    private static String session(short v, Object id, int epoch, String topics, String forgotten) {
        return "{" + (v < 15 ? "replicaId:-1, " : "") + "maxWaitMs:0, minBytes:0, maxBytes:1000000, sessionId:" + id + ", sessionEpoch:" + epoch
            + ", topics:[" + topics + "], forgottenTopicsData:[" + forgotten + "]}";
    }

    private static String topic(String name, String partitions) {
        return "{topic:'" + name + "', topicId:'$id:" + name + "', partitions:[" + partitions + "]}";
    }

    private static void sessions(Judge judge, short v, String all) throws Exception {
        String t = "session-v" + v;
        judge.topic(t, 2, "");
        judge.prepare(ApiKeys.PRODUCE, 9, Records.produce(t, "one", ""));
        String both = topic(t, "{" + all + "},{partition:1,partitionMaxBytes:1000000}");
        judge.ask("session: of an unknown id", ApiKeys.FETCH, v, session(v, 123456, 1, both, ""));
        judge.ask("session: closed, of an unknown id", ApiKeys.FETCH, v, session(v, 123456, -1, both, ""));
        Judge.Answers first = judge.ask("session: begun", ApiKeys.FETCH, v, session(v, 0, 0, both, ""));
        judge.save("session", first, "/sessionId");
        if (first.tidelog().path("sessionId").asInt() == 0) {
            // Not granted: each Fetch is a whole one.
            return;
        }
        judge.ask("session: nothing changed, records again", ApiKeys.FETCH, v, session(v, "'$session'", 1, "", ""));
        judge.ask("session: moved on", ApiKeys.FETCH, v, session(v, "'$session'", 2, topic(t, "{" + all + ",fetchOffset:2}"), ""));
        judge.ask("session: nothing new", ApiKeys.FETCH, v, session(v, "'$session'", 3, "", ""));
        judge.prepare(ApiKeys.PRODUCE, 9, Records.produce(t, "one", "").replace("index:0", "index:1"));
        judge.ask("session: something new", ApiKeys.FETCH, v, session(v, "'$session'", 4, "", ""));
        judge.ask("session: of a wrong epoch", ApiKeys.FETCH, v, session(v, "'$session'", 9, "", ""));
        judge.ask("session: one forgotten", ApiKeys.FETCH, v, session(v, "'$session'", 5, "", topic(t, "1")));
        judge.ask("session: one that is not there", ApiKeys.FETCH, v, session(v, "'$session'", 6, topic(t, "{partition:7,partitionMaxBytes:1000000}"), ""));
        judge.ask("session: one that is not there, again", ApiKeys.FETCH, v, session(v, "'$session'", 7, "", ""));
        judge.ask("session: an unknown topic", ApiKeys.FETCH, v, session(v, "'$session'", 8, topic("nowhere", "{" + all + "}"), ""));
        judge.ask("session: an unknown topic, again", ApiKeys.FETCH, v, session(v, "'$session'", 9, "", ""));
        judge.ask("session: closed", ApiKeys.FETCH, v, session(v, "'$session'", -1, "", ""));
        judge.ask("session: after it was closed", ApiKeys.FETCH, v, session(v, "'$session'", 10, "", ""));
    }
}
