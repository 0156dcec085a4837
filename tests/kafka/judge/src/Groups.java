import org.apache.kafka.common.protocol.ApiKeys;

/** Groups whose members share out partitions themselves, and what describes and deletes groups. */
final class Groups {
    private Groups() {}

    private static final String PROTOCOL = "protocolType:'consumer', protocols:[{name:'range',metadata:'m'}]";

    private static String join(String group, String more) {
        return "{groupId:'" + group + "', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'', " + PROTOCOL + more + "}";
    }

    static void run(Judge judge) throws Exception {
        judge.each(ApiKeys.FIND_COORDINATOR,
            "of a group", "{key:'g', coordinatorKeys:[]}",
            "of groups", "{coordinatorKeys:['g','h']}",
            "of a transaction", "{keyType:1, key:'t'}",
            "of transactions", "{keyType:1, coordinatorKeys:['t']}",
            "of a share group", "{keyType:2, coordinatorKeys:['g:AAAAAAAAAAAAAAAAAAAAAQ:0']}",
            "of a share group, a bad key", "{keyType:2, coordinatorKeys:['g']}",
            "of an unknown kind", "{keyType:9, key:'g'}",
            "of an unknown kind, several", "{keyType:9, coordinatorKeys:['g']}",
            "of no name", "{key:''}",
            "of no name, several", "{coordinatorKeys:['','g']}",
            "twice the same", "{coordinatorKeys:['g','g']}",
            "of nothing", "{coordinatorKeys:[]}");
        for (short v : judge.versions(ApiKeys.JOIN_GROUP)) {
            joined(judge, v);
            refused(judge, v);
            if (v >= 5) {
                named(judge, v);
            }
        }
        for (short v : judge.versions(ApiKeys.LEAVE_GROUP)) {
            left(judge, v);
        }
        lists(judge);
        described(judge);
        deleted(judge);
    }

    /** A member's id: given out with an error from version 4 on. */
    private static void enter(Judge judge, String label, String name, short v, String group, String more, String member) throws Exception {
        Judge.Answers answers = judge.ask(label, name, ApiKeys.JOIN_GROUP, v, join(group, more));
        judge.save(member, answers, "/memberId");
        if (v >= 4 && answers.kafka().path("errorCode").asInt() == 79) {
            judge.ask(label, name + ", with its id", ApiKeys.JOIN_GROUP, v,
                join(group, more).replace("memberId:''", "memberId:'$" + member + "'"));
        }
    }

    /** The life of a group: one member, a second one, one that goes. */
    private static void joined(Judge judge, short v) throws Exception {
        String g = "life-v" + v;
        short sync = (short) Math.min(v, judge.versions(ApiKeys.SYNC_GROUP).size() - 1);
        short beat = (short) Math.min(v, judge.versions(ApiKeys.HEARTBEAT).size() - 1);
        short leave = (short) Math.min(v, judge.versions(ApiKeys.LEAVE_GROUP).size() - 1);
        String at = ", protocolType:'consumer', protocolName:'range'";
        String with = sync < 5 ? "" : at;
        enter(judge, "main", "first member", v, g, "", "m1");
        judge.ask("first member syncs, wrong generation", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:7, memberId:'$m1'" + with + "}");
        judge.ask("unknown member syncs", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:1, memberId:'nobody'" + with + "}");
        if (sync >= 5) {
            judge.ask("first member syncs, other protocol", ApiKeys.SYNC_GROUP, sync,
                "{groupId:'" + g + "', generationId:1, memberId:'$m1', protocolType:'consumer', protocolName:'other'}");
            judge.ask("first member syncs, other type", ApiKeys.SYNC_GROUP, sync,
                "{groupId:'" + g + "', generationId:1, memberId:'$m1', protocolType:'other', protocolName:'range'}");
        }
        judge.ask("before it is stable", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}");
        judge.ask("first member syncs", ApiKeys.SYNC_GROUP, sync,
            "{groupId:'" + g + "', generationId:1, memberId:'$m1'" + with + ", assignments:[{memberId:'$m1',assignment:'mine'}]}");
        judge.ask("first member syncs again", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:1, memberId:'$m1'" + with + "}");
        String[] beats = {
            "ordinary", "{groupId:'" + g + "', generationId:1, memberId:'$m1'}",
            "wrong generation", "{groupId:'" + g + "', generationId:7, memberId:'$m1'}",
            "generation -1", "{groupId:'" + g + "', generationId:-1, memberId:'$m1'}",
            "unknown member", "{groupId:'" + g + "', generationId:1, memberId:'nobody'}",
            "no member", "{groupId:'" + g + "', generationId:1, memberId:''}",
            "unknown group", "{groupId:'nowhere', generationId:1, memberId:'$m1'}",
            "no group", "{groupId:'', generationId:1, memberId:'$m1'}",
        };
        for (int i = 0; i < beats.length; i += 2) {
            judge.ask(beats[i], ApiKeys.HEARTBEAT, beat, beats[i + 1]);
        }
        judge.ask("of one member", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}");
        // Protocols that the first one does not have.
        judge.ask("c2", "other protocols", ApiKeys.JOIN_GROUP, v,
            "{groupId:'" + g + "', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'', protocolType:'consumer', protocols:[{name:'other',metadata:'m'}]}");
        judge.ask("c2", "another type", ApiKeys.JOIN_GROUP, v,
            "{groupId:'" + g + "', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'', protocolType:'connect', protocols:[{name:'range',metadata:'m'}]}");
        String second = join(g, "");
        if (v >= 4) {
            judge.save("m2", judge.ask("c2", "second member", ApiKeys.JOIN_GROUP, v, second), "/memberId");
            second = second.replace("memberId:''", "memberId:'$m2'");
        }
        Judge.Pending waiting = judge.begin("c2", "second member in", ApiKeys.JOIN_GROUP, v, second);
        judge.both(ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}", answer -> answer.at("/groups/0/groupState").asText().equals("PreparingRebalance"));
        judge.ask("while others join", ApiKeys.HEARTBEAT, beat, "{groupId:'" + g + "', generationId:1, memberId:'$m1'}");
        judge.ask("while others join", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:1, memberId:'$m1'" + with + "}");
        judge.ask("while others join", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}");
        judge.ask("while others join", ApiKeys.OFFSET_COMMIT, 7,
            "{groupId:'" + g + "', generationIdOrMemberEpoch:1, memberId:'$m1', topics:[{name:'orders',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        Judge.Pending again = judge.begin("main", "first member again", ApiKeys.JOIN_GROUP, v, join(g, "").replace("memberId:''", "memberId:'$m1'"));
        Judge.Answers led = judge.end(again);
        // Version 3 and before give the second member its id only now; both servers then have other ids in the leader's answer.
        Judge.Answers second2 = judge.end(waiting);
        judge.save("m2", second2, "/memberId");
        judge.save("generation", led, "/generationId");
        Judge.Pending follower = judge.begin("c2", "follower syncs", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:2, memberId:'$m2'" + with + "}");
        judge.ask("leader syncs", ApiKeys.SYNC_GROUP, sync,
            "{groupId:'" + g + "', generationId:2, memberId:'$m1'" + with + ", assignments:[{memberId:'$m1',assignment:'one'},{memberId:'$m2',assignment:'two'}]}");
        judge.end(follower);
        judge.ask("of two members", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}");
        judge.ask("second member commits", ApiKeys.OFFSET_COMMIT, 7,
            "{groupId:'" + g + "', generationIdOrMemberEpoch:2, memberId:'$m2', topics:[{name:'orders',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        for (String member : new String[] {"m2", "m1"}) {
            judge.ask("member leaves", ApiKeys.LEAVE_GROUP, leave, leave < 3 ? "{groupId:'" + g + "', memberId:'$" + member + "'}"
                : "{groupId:'" + g + "', members:[{memberId:'$" + member + "'}]}");
        }
        judge.ask("of a group that all have left", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}");
        enter(judge, "main", "a member after all have left", v, g, "", "m3");
        judge.ask("member leaves", ApiKeys.LEAVE_GROUP, leave, leave < 3 ? "{groupId:'" + g + "', memberId:'$m3'}"
            : "{groupId:'" + g + "', members:[{memberId:'$m3'}]}");
    }

    private static void refused(Judge judge, short v) throws Exception {
        String base = join("refused@", "");
        String[] asked = {
            "no group", base.replace("refused@", ""),
            "session of 10 ms", base.replace("sessionTimeoutMs:30000", "sessionTimeoutMs:10"),
            "session of an hour", base.replace("sessionTimeoutMs:30000", "sessionTimeoutMs:3600000"),
            "session of 0", base.replace("sessionTimeoutMs:30000", "sessionTimeoutMs:0"),
            "rebalance of 0", base.replace("rebalanceTimeoutMs:30000", "rebalanceTimeoutMs:0").replace("refused", "rebalance0"),
            "unknown member", base.replace("memberId:''", "memberId:'nobody'"),
            "no protocol", base.replace(PROTOCOL, "protocolType:'consumer', protocols:[]"),
            "no type", base.replace("protocolType:'consumer'", "protocolType:''"),
            "neither", base.replace(PROTOCOL, "protocolType:'', protocols:[]"),
        };
        for (int at = 0; at < asked.length; at += 2) {
            judge.ask(asked[at], ApiKeys.JOIN_GROUP, v, asked[at + 1]);
        }
    }

    /** Static members. */
    private static void named(Judge judge, short v) throws Exception {
        String g = "static-v" + v;
        String join = join(g, ", groupInstanceId:'i1'");
        judge.save("s1", judge.ask("static member", ApiKeys.JOIN_GROUP, v, join), "/memberId");
        short sync = (short) Math.min(v, judge.versions(ApiKeys.SYNC_GROUP).size() - 1);
        String with = sync < 5 ? "" : ", protocolType:'consumer', protocolName:'range'";
        judge.ask("static member", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:1, memberId:'$s1', groupInstanceId:'i1'" + with
            + ", assignments:[{memberId:'$s1',assignment:'mine'}]}");
        judge.save("s2", judge.ask("static member comes back", ApiKeys.JOIN_GROUP, v, join), "/memberId");
        judge.ask("static member replaced", ApiKeys.HEARTBEAT, 4, "{groupId:'" + g + "', generationId:1, memberId:'$s1', groupInstanceId:'i1'}");
        judge.ask("static member", ApiKeys.HEARTBEAT, 4, "{groupId:'" + g + "', generationId:1, memberId:'$s2', groupInstanceId:'i1'}");
        judge.ask("unknown instance", ApiKeys.HEARTBEAT, 4, "{groupId:'" + g + "', generationId:1, memberId:'$s2', groupInstanceId:'i9'}");
        judge.ask("static member replaced", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:1, memberId:'$s1', groupInstanceId:'i1'" + with + "}");
        judge.ask("static member back", ApiKeys.SYNC_GROUP, sync, "{groupId:'" + g + "', generationId:1, memberId:'$s2', groupInstanceId:'i1'" + with + "}");
        judge.ask("static member replaced", ApiKeys.JOIN_GROUP, v, join.replace("memberId:''", "memberId:'$s1'"));
        judge.ask("static member replaced", ApiKeys.OFFSET_COMMIT, 7, "{groupId:'" + g
            + "', generationIdOrMemberEpoch:1, memberId:'$s1', groupInstanceId:'i1', topics:[{name:'orders',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.ask("of static members", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['" + g + "']}");
        judge.ask("an empty instance", ApiKeys.JOIN_GROUP, v, join("statice-v" + v, ", groupInstanceId:''"));
        judge.ask("unknown instance", ApiKeys.LEAVE_GROUP, 4, "{groupId:'" + g + "', members:[{memberId:'', groupInstanceId:'i9'}]}");
        judge.ask("by instance, of a wrong member", ApiKeys.LEAVE_GROUP, 4, "{groupId:'" + g + "', members:[{memberId:'$s1', groupInstanceId:'i1'}]}");
        judge.ask("by instance", ApiKeys.LEAVE_GROUP, 4, "{groupId:'" + g + "', members:[{memberId:'', groupInstanceId:'i1'}]}");
    }

    private static void left(Judge judge, short v) throws Exception {
        judge.ask("of an unknown group", ApiKeys.LEAVE_GROUP, v, v < 3 ? "{groupId:'nowhere', memberId:'x'}" : "{groupId:'nowhere', members:[{memberId:'x'}]}");
        judge.ask("of no group", ApiKeys.LEAVE_GROUP, v, v < 3 ? "{groupId:'', memberId:'x'}" : "{groupId:'', members:[{memberId:'x'}]}");
        judge.save("l1", judge.prepare(ApiKeys.JOIN_GROUP, 3, join("leave-v" + v, "")), "/memberId");
        judge.ask("unknown member", ApiKeys.LEAVE_GROUP, v, v < 3 ? "{groupId:'leave@', memberId:'x'}" : "{groupId:'leave@', members:[{memberId:'x'}]}");
        if (v >= 3) {
            judge.ask("no member", ApiKeys.LEAVE_GROUP, v, "{groupId:'leave@', members:[]}");
            judge.ask("several, one known", ApiKeys.LEAVE_GROUP, v, "{groupId:'leave@', members:[{memberId:'x'},{memberId:'$l1'},{memberId:'$l1'}]}");
        } else {
            judge.ask("known member", ApiKeys.LEAVE_GROUP, v, "{groupId:'leave@', memberId:'$l1'}");
        }
        judge.ask("once more", ApiKeys.LEAVE_GROUP, v, v < 3 ? "{groupId:'leave@', memberId:'$l1'}" : "{groupId:'leave@', members:[{memberId:'$l1'}]}");
    }

    private static void lists(Judge judge) throws Exception {
        judge.prepare(ApiKeys.OFFSET_COMMIT, 7, "{groupId:'listed1', generationIdOrMemberEpoch:-1, topics:[{name:'orders',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
        judge.save("x1", judge.prepare(ApiKeys.JOIN_GROUP, 3, join("listed2", "")), "/memberId");
        judge.prepare(ApiKeys.SYNC_GROUP, 3, "{groupId:'listed2', generationId:1, memberId:'$x1', assignments:[{memberId:'$x1',assignment:'all'}]}");
        judge.save("x2", judge.prepare(ApiKeys.JOIN_GROUP, 3, join("listed3", "")), "/memberId");
        judge.save("x3", judge.prepare(ApiKeys.JOIN_GROUP, 3, join("listed4", "")), "/memberId");
        judge.prepare(ApiKeys.LEAVE_GROUP, 2, "{groupId:'listed4', memberId:'$x3'}");
        judge.prepare(ApiKeys.CONSUMER_GROUP_HEARTBEAT, 0,
            "{groupId:'listed5', memberId:'', memberEpoch:0, rebalanceTimeoutMs:30000, subscribedTopicNames:['orders'], topicPartitions:[]}");
        String[] asked = {
            "all", "{}",
            "empty ones", "{statesFilter:['Empty']}",
            "stable ones", "{statesFilter:['Stable']}",
            "in small letters", "{statesFilter:['empty']}",
            "of an unknown state", "{statesFilter:['Asleep']}",
            "of type classic", "{typesFilter:['classic']}",
            "of type consumer", "{typesFilter:['consumer']}",
            "of type share", "{typesFilter:['share']}",
            "of an unknown type", "{typesFilter:['odd']}",
            "by state and type", "{statesFilter:['Empty'],typesFilter:['classic']}",
        };
        for (short v : judge.versions(ApiKeys.LIST_GROUPS)) {
            for (int at = 0; at < asked.length; at += 2) {
                judge.askOnly("listed\\d", asked[at], ApiKeys.LIST_GROUPS, v, asked[at + 1]);
            }
        }
    }

    private static void described(Judge judge) throws Exception {
        judge.save("d1", judge.prepare(ApiKeys.JOIN_GROUP, 3, join("known", "")), "/memberId");
        judge.prepare(ApiKeys.SYNC_GROUP, 3, "{groupId:'known', generationId:1, memberId:'$d1', assignments:[{memberId:'$d1',assignment:'all'}]}");
        judge.each(ApiKeys.DESCRIBE_GROUPS,
            "known", "{groups:['known']}",
            "unknown", "{groups:['nowhere']}",
            "without a name", "{groups:['']}",
            "several", "{groups:['known','nowhere']}",
            "twice the same", "{groups:['known','known']}",
            "none", "{groups:[]}",
            "what may be done", "{includeAuthorizedOperations:true, groups:['known']}",
            "what may be done to an unknown one", "{includeAuthorizedOperations:true, groups:['nowhere']}");
    }

    private static void deleted(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.DELETE_GROUPS)) {
            judge.prepare(ApiKeys.OFFSET_COMMIT, 7, "{groupId:'gone-v" + v
                + "', generationIdOrMemberEpoch:-1, topics:[{name:'orders',partitions:[{partitionIndex:0,committedOffset:1}]}]}");
            judge.ask("with members", ApiKeys.DELETE_GROUPS, v, "{groupsNames:['known']}");
            judge.ask("unknown", ApiKeys.DELETE_GROUPS, v, "{groupsNames:['nowhere']}");
            judge.ask("without a name", ApiKeys.DELETE_GROUPS, v, "{groupsNames:['']}");
            judge.ask("twice the same", ApiKeys.DELETE_GROUPS, v, "{groupsNames:['gone@','gone@']}");
            judge.ask("none", ApiKeys.DELETE_GROUPS, v, "{groupsNames:[]}");
            judge.ask("after deletion", ApiKeys.OFFSET_FETCH, 8, "{groups:[{groupId:'gone-v" + v + "', topics:[{name:'orders',partitionIndexes:[0]}]}]}");
        }
    }
}
