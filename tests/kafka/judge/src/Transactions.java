import java.util.List;
import org.apache.kafka.common.protocol.ApiKeys;

/** Producer ids and transactions. */
final class Transactions {
    private Transactions() {}

    static void run(Judge judge) throws Exception {
        ids(judge);
        for (short v : judge.versions(ApiKeys.END_TXN)) {
            life(judge, v);
        }
        refused(judge);
        markers(judge);
        described(judge);
    }

    private static void ids(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.INIT_PRODUCER_ID)) {
            judge.save("p1", judge.ask("without a transactional id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:null, transactionTimeoutMs:60000}"), "/producerId");
            judge.save("p2", judge.ask("with a transactional id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000}"), "/producerId");
            judge.ask("again", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000}");
            judge.ask("with an empty transactional id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'', transactionTimeoutMs:60000}");
            judge.ask("with a time-out of 0", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init0@', transactionTimeoutMs:0}");
            judge.ask("with a time-out of -1", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init0@', transactionTimeoutMs:-1}");
            judge.ask("with a time-out of an hour", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init0@', transactionTimeoutMs:3600000}");
            judge.ask("with a time-out of 15 minutes", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init15@', transactionTimeoutMs:900000}");
            if (v >= 3) {
                judge.ask("with its id and epoch", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000, producerId:'$p2', producerEpoch:1}");
                judge.ask("with an older epoch", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000, producerId:'$p2', producerEpoch:0}");
                judge.ask("with a newer epoch", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000, producerId:'$p2', producerEpoch:9}");
                judge.ask("with another id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000, producerId:777777, producerEpoch:0}");
                judge.ask("with an id and no epoch", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000, producerId:777777, producerEpoch:-1}");
                judge.ask("with an epoch and no id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'init@', transactionTimeoutMs:60000, producerId:-1, producerEpoch:1}");
                judge.ask("with an id of an unknown transactional id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:'initu@', transactionTimeoutMs:60000, producerId:777777, producerEpoch:0}");
                judge.ask("with an id, without a transactional id", ApiKeys.INIT_PRODUCER_ID, v, "{transactionalId:null, transactionTimeoutMs:60000, producerId:'$p1', producerEpoch:0}");
            }
        }
    }

    /** The version of another request that goes with this one of EndTxn. */
    private static short beside(Judge judge, ApiKeys key, short version) {
        List<Short> versions = judge.versions(key);
        return (short) Math.max(versions.get(0), Math.min(version, versions.get(versions.size() - 1)));
    }

    private static void records(Judge judge, String name, String id, int epoch, int sequence) {
        for (Server server : List.of(judge.kafka, judge.tidelog)) {
            server.variables.put(name, Batches.transactional(judge.base, (Long) server.variables.get(id), epoch, sequence, "t1", "t2"));
        }
    }

    private static void life(Judge judge, short v) throws Exception {
        String t = "txn-v" + v;
        judge.topic(t, 2, "");
        short init = beside(judge, ApiKeys.INIT_PRODUCER_ID, v);
        short add = beside(judge, ApiKeys.ADD_PARTITIONS_TO_TXN, v);
        short offsets = beside(judge, ApiKeys.ADD_OFFSETS_TO_TXN, v);
        short commit = beside(judge, ApiKeys.TXN_OFFSET_COMMIT, v);
        short produce = beside(judge, ApiKeys.PRODUCE, (short) (v + 7));
        judge.save("tp", judge.prepare(ApiKeys.INIT_PRODUCER_ID, init, "{transactionalId:'" + t + "', transactionTimeoutMs:60000}"), "/producerId");
        String me = "transactionalId:'" + t + "', producerId:'$tp', producerEpoch:0";
        judge.ask("committed with nothing begun", ApiKeys.END_TXN, v, "{" + me + ", committed:true}");
        judge.ask("aborted with nothing begun", ApiKeys.END_TXN, v, "{" + me + ", committed:false}");
        records(judge, "txn", "tp", 0, 0);
        judge.ask("in a transaction, partition not added", ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ", transactionalId:'" + t + "'"));
        String mine = "v3AndBelowTransactionalId:'" + t + "', v3AndBelowProducerId:'$tp', v3AndBelowProducerEpoch:0, v3AndBelowTopics:";
        judge.ask("two partitions", ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[{name:'" + t + "',partitions:[0,1]}]}");
        judge.ask("the same again", ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[{name:'" + t + "',partitions:[0]}]}");
        judge.ask("one known and one not", ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[{name:'" + t + "',partitions:[0,9]},{name:'nowhere',partitions:[0]}]}");
        judge.ask("no topic", ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[]}");
        judge.ask("in a transaction", ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ", transactionalId:'" + t + "'"));
        judge.ask("in a transaction, again", ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ", transactionalId:'" + t + "'"));
        judge.ask("in a transaction, without its transactional id", ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ""));
        look(judge, t, "while open");
        judge.ask("a group", ApiKeys.ADD_OFFSETS_TO_TXN, offsets, "{" + me + ", groupId:'g" + t + "'}");
        judge.ask("no group", ApiKeys.ADD_OFFSETS_TO_TXN, offsets, "{" + me + ", groupId:''}");
        String positions = ", groupId:'g" + t + "', topics:[{name:'" + t + "',partitions:[{partitionIndex:0,committedOffset:2}]}]";
        judge.ask("positions", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions + "}");
        judge.ask("positions of a partition that is not there", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions.replace("partitionIndex:0", "partitionIndex:9") + "}");
        judge.ask("positions of an unknown topic", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions.replace("name:'" + t, "name:'nowhere") + "}");
        judge.ask("a position of -1", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions.replace("partitionIndex:0,committedOffset:2", "partitionIndex:1,committedOffset:-1") + "}");
        if (commit >= 3) {
            judge.ask("positions of an unknown member", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions + ", memberId:'nobody', generationIdOrMemberEpoch:1}");
            judge.ask("positions of a wrong generation", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions + ", memberId:'', generationIdOrMemberEpoch:5}");
        }
        judge.ask("positions of a group that was not added", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions.replace("'g" + t, "'other" + t) + "}");
        judge.ask("positions of no group", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions.replace("'g" + t + "'", "''") + "}");
        judge.ask("no position", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + ", groupId:'g" + t + "', topics:[]}");
        judge.ask("pending positions", ApiKeys.OFFSET_FETCH, 7, "{requireStable:true, groupId:'g" + t + "', topics:[{name:'" + t + "',partitionIndexes:[0]}]}");
        judge.ask("pending positions, not stable", ApiKeys.OFFSET_FETCH, 7, "{groupId:'g" + t + "', topics:[{name:'" + t + "',partitionIndexes:[0]}]}");
        judge.ask("of a wrong epoch", ApiKeys.END_TXN, v, "{" + me.replace("producerEpoch:0", "producerEpoch:7") + ", committed:true}");
        judge.ask("of another producer", ApiKeys.END_TXN, v, "{" + me.replace("'$tp'", "777777") + ", committed:true}");
        judge.ask("committed", ApiKeys.END_TXN, v, "{" + me + ", committed:true}");
        judge.both(ApiKeys.DESCRIBE_TRANSACTIONS, 0, "{transactionalIds:['" + t + "']}",
            answer -> answer.at("/transactionStates/0/transactionState").asText().matches("Complete.*|Empty"));
        judge.ask("committed again", ApiKeys.END_TXN, v, "{" + me + ", committed:true}");
        judge.ask("aborted after the commit", ApiKeys.END_TXN, v, "{" + me + ", committed:false}");
        look(judge, t, "when committed");
        judge.ask("committed positions", ApiKeys.OFFSET_FETCH, 7, "{requireStable:true, groupId:'g" + t + "', topics:[{name:'" + t + "',partitionIndexes:[0]}]}");
        // A second one, aborted.
        judge.prepare(ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[{name:'" + t + "',partitions:[0]}]}");
        records(judge, "txn", "tp", 0, 2);
        judge.ask("in the next transaction", ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ", transactionalId:'" + t + "'"));
        judge.ask("aborted", ApiKeys.END_TXN, v, "{" + me + ", committed:false}");
        judge.both(ApiKeys.DESCRIBE_TRANSACTIONS, 0, "{transactionalIds:['" + t + "']}",
            answer -> answer.at("/transactionStates/0/transactionState").asText().matches("Complete.*|Empty"));
        judge.ask("aborted again", ApiKeys.END_TXN, v, "{" + me + ", committed:false}");
        look(judge, t, "when aborted");
        // A third one, ended by a new instance.
        judge.prepare(ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[{name:'" + t + "',partitions:[0]}]}");
        records(judge, "txn", "tp", 0, 4);
        judge.prepare(ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ", transactionalId:'" + t + "'"));
        for (Server server : List.of(judge.kafka, judge.tidelog)) {
            Judge.until(server, ApiKeys.INIT_PRODUCER_ID, init, "{transactionalId:'" + t + "', transactionTimeoutMs:60000}", answer -> answer.path("errorCode").asInt(-1) == 0);
        }
        judge.ask("of who was replaced", ApiKeys.END_TXN, v, "{" + me + ", committed:true}");
        judge.ask("of who was replaced", ApiKeys.ADD_PARTITIONS_TO_TXN, add, "{" + mine + "[{name:'" + t + "',partitions:[0]}]}");
        judge.ask("of who was replaced", ApiKeys.ADD_OFFSETS_TO_TXN, offsets, "{" + me + ", groupId:'g" + t + "'}");
        judge.ask("of who was replaced", ApiKeys.TXN_OFFSET_COMMIT, commit, "{" + me + positions + "}");
        records(judge, "txn", "tp", 0, 6);
        judge.ask("of who was replaced", ApiKeys.PRODUCE, produce, Records.produce(t, "txn", ", transactionalId:'" + t + "'"));
        look(judge, t, "when replaced");
    }

    /** What is seen of a transaction from outside. */
    private static void look(Judge judge, String t, String when) throws Exception {
        for (int isolation = 0; isolation < 2; isolation++) {
            judge.ask(when + ", isolation " + isolation, ApiKeys.FETCH, 11, "{replicaId:-1, maxWaitMs:0, minBytes:0, maxBytes:1000000, sessionEpoch:-1, isolationLevel:"
                + isolation + ", topics:[{topic:'" + t + "', partitions:[{partition:0,partitionMaxBytes:1000000}]}]}");
            for (int time : new int[] {-1, -3, 1}) {
                judge.ask(when + ", isolation " + isolation + ", at " + time, ApiKeys.LIST_OFFSETS, 7, "{replicaId:-1, isolationLevel:" + isolation
                    + ", topics:[{name:'" + t + "', partitions:[{partitionIndex:0,timestamp:" + time + "}]}]}");
            }
        }
        judge.ask(when, ApiKeys.DESCRIBE_TRANSACTIONS, 0, "{transactionalIds:['" + t + "']}");
        judge.ask(when, ApiKeys.DESCRIBE_PRODUCERS, 0, "{topics:[{name:'" + t + "', partitionIndexes:[0,1]}]}");
    }

    private static void refused(Judge judge) throws Exception {
        judge.save("rp", judge.prepare(ApiKeys.INIT_PRODUCER_ID, 4, "{transactionalId:'refusedtxn', transactionTimeoutMs:60000}"), "/producerId");
        String[][] who = {
            {"unknown transactional id", "nobody", "'$rp'", "0"}, {"no transactional id", "", "'$rp'", "0"}, {"another producer", "refusedtxn", "777777", "0"},
            {"an older epoch", "refusedtxn", "'$rp'", "-1"}, {"a newer epoch", "refusedtxn", "'$rp'", "5"}, {"producer -1", "refusedtxn", "-1", "-1"},
        };
        for (String[] one : who) {
            String me = "transactionalId:'" + one[1] + "', producerId:" + one[2] + ", producerEpoch:" + one[3];
            judge.each(ApiKeys.END_TXN, one[0], "{" + me + ", committed:true}");
            judge.each(ApiKeys.ADD_OFFSETS_TO_TXN, one[0], "{" + me + ", groupId:'g'}");
            judge.each(ApiKeys.TXN_OFFSET_COMMIT, one[0], "{" + me + ", groupId:'gr', topics:[{name:'orders',partitions:[{partitionIndex:0,committedOffset:2}]}]}");
            judge.each(ApiKeys.ADD_PARTITIONS_TO_TXN, one[0], "{v3AndBelowTransactionalId:'" + one[1] + "', v3AndBelowProducerId:" + one[2]
                + ", v3AndBelowProducerEpoch:" + one[3] + ", v3AndBelowTopics:[{name:'orders',partitions:[0]}]}");
        }
    }

    private static void markers(Judge judge) throws Exception {
        String marker = "producerId:888888, producerEpoch:0, transactionResult:true, coordinatorEpoch:0, topics:";
        judge.each(ApiKeys.WRITE_TXN_MARKERS,
            "of a producer without a transaction", "{markers:[{" + marker + "[{name:'single',partitionIndexes:[0]}]}]}",
            "to an unknown topic", "{markers:[{" + marker + "[{name:'nowhere',partitionIndexes:[0]}]}]}",
            "to a partition that is not there", "{markers:[{" + marker + "[{name:'single',partitionIndexes:[9]}]}]}",
            "no topic", "{markers:[{" + marker + "[]}]}",
            "none", "{markers:[]}");
        judge.ask("after markers", ApiKeys.LIST_OFFSETS, 7, "{replicaId:-1, topics:[{name:'single', partitions:[{partitionIndex:0,timestamp:-1}]}]}");
    }

    private static void described(Judge judge) throws Exception {
        judge.each(ApiKeys.DESCRIBE_TRANSACTIONS,
            "idle", "{transactionalIds:['refusedtxn']}",
            "unknown", "{transactionalIds:['nobody']}",
            "without a name", "{transactionalIds:['']}",
            "twice the same", "{transactionalIds:['refusedtxn','refusedtxn']}",
            "none", "{transactionalIds:[]}");
        judge.save("lp", judge.prepare(ApiKeys.INIT_PRODUCER_ID, 4, "{transactionalId:'listed1', transactionTimeoutMs:60000}"), "/producerId");
        judge.save("lp2", judge.prepare(ApiKeys.INIT_PRODUCER_ID, 4, "{transactionalId:'listed2', transactionTimeoutMs:60000}"), "/producerId");
        judge.prepare(ApiKeys.ADD_PARTITIONS_TO_TXN, 3, "{v3AndBelowTransactionalId:'listed2', v3AndBelowProducerId:'$lp2', v3AndBelowProducerEpoch:0,"
            + " v3AndBelowTopics:[{name:'orders',partitions:[0]}]}");
        String[] asked = {
            "all", "{}",
            "empty ones", "{stateFilters:['Empty']}",
            "ongoing ones", "{stateFilters:['Ongoing']}",
            "in small letters", "{stateFilters:['empty']}",
            "of an unknown state", "{stateFilters:['Asleep','Empty']}",
            "of an unknown state only", "{stateFilters:['Asleep']}",
            "of a producer", "{producerIdFilters:['$lp']}",
            "of an unknown producer", "{producerIdFilters:[777777]}",
            "longer than 0 ms", "{durationFilter:0}",
            "longer than an hour", "{durationFilter:3600000}",
            "by an expression", "{transactionalIdPattern:'listed.*'}",
            "by a bad expression", "{transactionalIdPattern:'('}",
        };
        for (short v : judge.versions(ApiKeys.LIST_TRANSACTIONS)) {
            for (int at = 0; at < asked.length; at += 2) {
                judge.askOnly("listed\\d", asked[at], ApiKeys.LIST_TRANSACTIONS, v, asked[at + 1]);
            }
        }
        judge.prepare(ApiKeys.END_TXN, 3, "{transactionalId:'listed2', producerId:'$lp2', producerEpoch:0, committed:false}");
    }
}
