import org.apache.kafka.common.protocol.ApiKeys;

/** Groups whose partitions the server shares out (KIP-848). */
final class Consumers {
    private Consumers() {}

    private static String beat(String group, String member, int epoch, String more) {
        return "{groupId:'" + group + "', memberId:'" + member + "', memberEpoch:" + epoch + more + "}";
    }

    static void run(Judge judge) throws Exception {
        judge.topic("shared", 2, "");
        // Kafka's group coordinator hears of it a little later.
        Thread.sleep(500);
        for (short v : judge.versions(ApiKeys.CONSUMER_GROUP_HEARTBEAT)) {
            life(judge, v);
            refused(judge, v);
            named(judge, v);
        }
        judge.each(ApiKeys.CONSUMER_GROUP_DESCRIBE,
            "unknown", "{groupIds:['nowhere']}",
            "without a name", "{groupIds:['']}",
            "none", "{groupIds:[]}",
            "twice the same", "{groupIds:['share@','share@']}",
            "what may be done", "{includeAuthorizedOperations:true, groupIds:['share@']}",
            "of a group of the classic kind", "{groupIds:['classic-v0']}");
        judge.each(ApiKeys.SHARE_GROUP_HEARTBEAT, "unknown group", "{groupId:'', memberId:'AAAAAAAAAAAAAAAAAAAAAQ'}",
            "first", "{groupId:'sg@', memberId:'m', memberEpoch:0, subscribedTopicNames:['shared']}");
        judge.each(ApiKeys.SHARE_GROUP_DESCRIBE, "unknown", "{groupIds:['nowhere']}", "known", "{groupIds:['sg@']}");
    }

    private static void life(Judge judge, short v) throws Exception {
        String g = "share-v" + v;
        String first = v == 0 ? "" : "cm1-v" + v;
        String join = ", rebalanceTimeoutMs:30000, subscribedTopicNames:['shared'], topicPartitions:[]";
        Judge.Answers answers = judge.ask("first member joins", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, beat(g, first, 0, join));
        judge.save("cm1", answers, "/memberId");
        judge.save("epoch", answers, "/memberEpoch");
        judge.kafka.aliases.keySet().removeIf(key -> key.startsWith("memberEpoch="));
        judge.tidelog.aliases.keySet().removeIf(key -> key.startsWith("memberEpoch="));
        String at = "{groupId:'" + g + "', memberId:'$cm1', memberEpoch:'$epoch'";
        judge.ask("first member", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, at + "}");
        String mine = ", topicPartitions:[{topicId:'$id:shared',partitions:[0,1]}]";
        judge.ask("first member has its partitions", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, at + mine + "}");
        judge.ask("first member, in full", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v,
            at + ", rebalanceTimeoutMs:30000, subscribedTopicNames:['shared']" + mine + "}");
        judge.ask("of one member", ApiKeys.CONSUMER_GROUP_DESCRIBE, v, "{groupIds:['" + g + "']}");
        judge.ask("of a group of the newer kind", ApiKeys.DESCRIBE_GROUPS, 6, "{groups:['" + g + "']}");
        judge.ask("a commit of the epoch", ApiKeys.OFFSET_COMMIT, 9, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:'$epoch', memberId:'$cm1', topics:[{name:'shared',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("a commit of an older epoch", ApiKeys.OFFSET_COMMIT, 9, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:0, memberId:'$cm1', topics:[{name:'shared',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("a commit of a newer epoch", ApiKeys.OFFSET_COMMIT, 9, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:99, memberId:'$cm1', topics:[{name:'shared',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("a commit of another member", ApiKeys.OFFSET_COMMIT, 9, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:1, memberId:'nobody', topics:[{name:'shared',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("a commit of no member", ApiKeys.OFFSET_COMMIT, 9, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:-1, memberId:'', topics:[{name:'shared',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("a commit of the old kind", ApiKeys.OFFSET_COMMIT, 8, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:'$epoch', memberId:'$cm1', topics:[{name:'shared',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("offsets for the member", ApiKeys.OFFSET_FETCH, 9, "{groups:[{groupId:'" + g + "', memberId:'$cm1', memberEpoch:'$epoch', topics:null}]}");
        judge.ask("offsets for an older epoch", ApiKeys.OFFSET_FETCH, 9, "{groups:[{groupId:'" + g + "', memberId:'$cm1', memberEpoch:0, topics:null}]}");
        judge.ask("offsets for another member", ApiKeys.OFFSET_FETCH, 9, "{groups:[{groupId:'" + g + "', memberId:'nobody', memberEpoch:1, topics:null}]}");
        judge.ask("offsets for nobody", ApiKeys.OFFSET_FETCH, 9, "{groups:[{groupId:'" + g + "', topics:null}]}");
        judge.ask("a classic member of another protocol", ApiKeys.JOIN_GROUP, 3, "{groupId:'" + g
            + "', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'', protocolType:'connect', protocols:[{name:'range',metadata:'m'}]}");
        judge.ask("a classic heartbeat", ApiKeys.HEARTBEAT, 4, "{groupId:'" + g + "', generationId:1, memberId:'$cm1'}");
        judge.ask("while it has members", ApiKeys.DELETE_GROUPS, 2, "{groupsNames:['" + g + "']}");
        judge.ask("unknown member", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, beat(g, "nobody", 1, ""));
        judge.ask("an older epoch", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$cm1', memberEpoch:-5}");
        judge.ask("a newer epoch", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$cm1', memberEpoch:99}");
        judge.ask("partitions of an unknown topic", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, at + ", topicPartitions:[{topicId:'$none',partitions:[0]}]}");
        second(judge, v, g, join, at);
    }

    private static void second(Judge judge, short v, String g, String join, String at) throws Exception {
        Judge.Answers answers = judge.ask("second member joins", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, beat(g, v == 0 ? "" : "cm2-v" + v, 0, join));
        judge.save("cm2", answers, "/memberId");
        judge.save("epoch2", answers, "/memberEpoch");
        judge.kafka.aliases.keySet().removeIf(key -> key.startsWith("memberEpoch="));
        judge.tidelog.aliases.keySet().removeIf(key -> key.startsWith("memberEpoch="));
        Judge.Answers told = judge.ask("first member is told to give one up", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, at + "}");
        judge.save("kept", told, "/assignment/topicPartitions/0/partitions/0");
        judge.kafka.aliases.keySet().removeIf(key -> key.startsWith("0="));
        judge.tidelog.aliases.keySet().removeIf(key -> key.startsWith("0="));
        Judge.Answers gave = judge.ask("first member has given one up", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v,
            at + ", topicPartitions:[{topicId:'$id:shared',partitions:['$kept']}]}");
        judge.ask("second member gets it", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$cm2', memberEpoch:'$epoch2'}");
        judge.ask("of two members", ApiKeys.CONSUMER_GROUP_DESCRIBE, v, "{groupIds:['" + g + "']}");
        judge.ask("second member leaves", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$cm2', memberEpoch:-1}");
        judge.ask("second member leaves again", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$cm2', memberEpoch:-1}");
        judge.ask("first member leaves", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$cm1', memberEpoch:-1}");
        judge.ask("of no member", ApiKeys.CONSUMER_GROUP_DESCRIBE, v, "{groupIds:['" + g + "']}");
    }

    private static void refused(Judge judge, short v) throws Exception {
        String join = ", rebalanceTimeoutMs:30000, subscribedTopicNames:['shared'], topicPartitions:[]";
        judge.prepare(ApiKeys.JOIN_GROUP, 3,
            "{groupId:'classic-v" + v + "', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'', protocolType:'connect', protocols:[{name:'range',metadata:'m'}]}");
        String[] asked = {
            "no group", beat("", "x", 0, join),
            "an empty group of one space", beat(" ", "x@", 0, join),
            "no member", beat("sr1@", "", 0, join),
            "no rebalance time", beat("sr2@", "x@", 0, ", subscribedTopicNames:['shared'], topicPartitions:[]"),
            "no topics", beat("sr3@", "x@", 0, ", rebalanceTimeoutMs:30000, topicPartitions:[]"),
            "an empty list of topics", beat("sr4@", "x@", 0, ", rebalanceTimeoutMs:30000, subscribedTopicNames:[], topicPartitions:[]"),
            "no partitions", beat("sr5@", "x@", 0, ", rebalanceTimeoutMs:30000, subscribedTopicNames:['shared']"),
            "partitions at joining", beat("sr6@", "x@", 0, ", rebalanceTimeoutMs:30000, subscribedTopicNames:['shared'], topicPartitions:[{topicId:'$id:shared',partitions:[0]}]"),
            "an unknown assignor", beat("sr7@", "x@", 0, join + ", serverAssignor:'fair'"),
            "the range assignor", beat("sr8@", "x@", 0, join + ", serverAssignor:'range'"),
            "an empty rack", beat("sr9@", "x@", 0, join + ", rackId:''"),
            "an empty instance", beat("sr10@", "x@", 0, join + ", instanceId:''"),
            "an unknown topic", beat("sr11@", "x@", 0, join.replace("shared", "nowhere")),
            "an expression", beat("sr12@", "x@", 0, ", rebalanceTimeoutMs:30000, subscribedTopicRegex:'shar.*', topicPartitions:[]"),
            "a bad expression", beat("sr13@", "x@", 0, ", rebalanceTimeoutMs:30000, subscribedTopicRegex:'(', topicPartitions:[]"),
            "an empty expression", beat("sr14@", "x@", 0, ", rebalanceTimeoutMs:30000, subscribedTopicRegex:'', topicPartitions:[]"),
            "names and an expression", beat("sr15@", "x@", 0, join + ", subscribedTopicRegex:'ord.*'"),
            "epoch -3", beat("sr16@", "x@", -3, join),
            "epoch -1 of an unknown group", beat("sr17@", "x@", -1, ""),
            "epoch -2 without an instance", beat("sr18@", "x@", -2, ""),
            "epoch 1 of an unknown group", beat("sr19@", "x@", 1, ""),
            "a group of classic members of another kind", beat("classic@", "x@", 0, join),
            "rebalance time 0", beat("sr20@", "x@", 0, join.replace("30000", "0")),
            "a long member id", beat("sr21@", "x".repeat(40), 0, join),
        };
        for (int at = 0; at < asked.length; at += 2) {
            judge.ask(asked[at], ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, asked[at + 1]);
        }
    }

    private static void named(Judge judge, short v) throws Exception {
        String g = "snamed-v" + v;
        String join = ", rebalanceTimeoutMs:30000, subscribedTopicNames:['shared'], topicPartitions:[], instanceId:'i1'";
        judge.save("si1", judge.ask("static member joins", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, beat(g, v == 0 ? "" : "si1-v1", 0, join)), "/memberId");
        judge.ask("static member, its name taken", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, beat(g, v == 0 ? "" : "si2-v1", 0, join));
        judge.ask("static member goes for a while", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$si1', memberEpoch:-2, instanceId:'i1'}");
        judge.save("si3", judge.ask("static member comes back", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, beat(g, v == 0 ? "" : "si3-v1", 0, join)), "/memberId");
        judge.ask("static member replaced", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$si1', memberEpoch:1, instanceId:'i1'}");
        judge.ask("of a static member", ApiKeys.CONSUMER_GROUP_DESCRIBE, v, "{groupIds:['" + g + "']}");
        judge.ask("static member leaves", ApiKeys.CONSUMER_GROUP_HEARTBEAT, v, "{groupId:'" + g + "', memberId:'$si3', memberEpoch:-1, instanceId:'i1'}");
    }
}
