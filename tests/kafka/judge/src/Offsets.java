import org.apache.kafka.common.protocol.ApiKeys;

/** Positions of groups: committed, fetched, deleted. */
final class Offsets {
    private Offsets() {}

    /** A commit of who is no member. */
    private static String commit(String group, String topic, String partitions, String more) {
        return "{groupId:'" + group + "', generationIdOrMemberEpoch:-1, memberId:''" + more + ", topics:[{name:'" + topic + "', topicId:'$id:" + topic
            + "', partitions:[" + partitions + "]}]}";
    }

    static void run(Judge judge) throws Exception {
        judge.variable("id:nowhere", "AAAAAAAAAAAAAAAAAAAAAQ");
        judge.variable("id:a b", "AAAAAAAAAAAAAAAAAAAAAQ");
        judge.variable("id:", "AAAAAAAAAAAAAAAAAAAAAA");
        for (short v : judge.versions(ApiKeys.OFFSET_COMMIT)) {
            committed(judge, v);
        }
        fetched(judge);
        deleted(judge);
    }

    private static void committed(Judge judge, short v) throws Exception {
        String one = "partitionIndex:0,committedOffset:5";
        String[] asked = {
            "ordinary", commit("c@", "orders", "{" + one + "}", ""),
            "with metadata", commit("c@", "orders", "{partitionIndex:1,committedOffset:6,committedMetadata:'note'}", ""),
            "with a leader epoch", commit("ce@", "orders", "{" + one + ",committedLeaderEpoch:3}", ""),
            "beyond the end", commit("c@", "orders", "{partitionIndex:1,committedOffset:99999999}", ""),
            "of -1", commit("cm@", "orders", "{partitionIndex:0,committedOffset:-1}", ""),
            "of -2", commit("cmm@", "orders", "{partitionIndex:0,committedOffset:-2}", ""),
            "of -7", commit("cmmm@", "orders", "{partitionIndex:0,committedOffset:-7}", ""),
            "with metadata null", commit("cn@", "orders", "{" + one + ",committedMetadata:null}", ""),
            "with 4096 bytes of metadata", commit("c4096@", "orders", "{" + one + ",committedMetadata:'" + "x".repeat(4096) + "'}", ""),
            "with 4097 bytes of metadata", commit("c4097@", "orders", "{" + one + ",committedMetadata:'" + "x".repeat(4097) + "'}", ""),
            "to an unknown topic", commit("c@", "nowhere", "{" + one + "}", ""),
            "to a bad name", commit("c@", "a b", "{" + one + "}", ""),
            "to no name", commit("c@", "", "{" + one + "}", ""),
            "to a partition that is not there", commit("c@", "orders", "{partitionIndex:9,committedOffset:5}", ""),
            "to partition -1", commit("c@", "orders", "{partitionIndex:-1,committedOffset:5}", ""),
            "twice the same", commit("c@", "orders", "{" + one + "},{partitionIndex:0,committedOffset:7}", ""),
            "to a good partition and a bad one", commit("c@", "orders", "{" + one + "},{partitionIndex:9,committedOffset:7}", ""),
            "without a group", commit("", "orders", "{" + one + "}", ""),
            "no topic", "{groupId:'c@', generationIdOrMemberEpoch:-1, memberId:'', topics:[]}",
            "no topic to a new group", "{groupId:'cnew@', generationIdOrMemberEpoch:-1, memberId:'', topics:[]}",
            "no partition", commit("c@", "orders", "", ""),
            "of no member with an id", commit("c@", "orders", "{" + one + "}", "").replace("memberId:''", "memberId:'any'"),
            "of no member with an id, to a new group", commit("cid@", "orders", "{" + one + "}", "").replace("memberId:''", "memberId:'any'"),
            "of a generation without a group", commit("cgen@", "orders", "{" + one + "}", "").replace("Epoch:-1", "Epoch:3").replace("memberId:''", "memberId:'any'"),
            "of a generation without a member", commit("c@", "orders", "{" + one + "}", "").replace("Epoch:-1", "Epoch:3"),
            "of an instance without a member", commit("c@", "orders", "{" + one + "}", ", groupInstanceId:'i1'"),
        };
        for (int at = 0; at < asked.length; at += 2) {
            judge.ask(asked[at], ApiKeys.OFFSET_COMMIT, v, asked[at + 1]);
        }
        StringBuilder groups = new StringBuilder();
        for (String group : new String[] {"c", "ce", "cm", "cmm", "cmmm", "cn", "c4096", "c4097", "cnew", "cid", "cgen"}) {
            groups.append("{groupId:'").append(group).append("-v").append(v).append("', topics:null},");
        }
        judge.ask("after commits of version " + v, ApiKeys.OFFSET_FETCH, 8, "{groups:[" + groups + "]}");
        judge.ask("after commits", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['c-v" + v + "','cnew-v" + v + "']}");
        member(judge, v);
    }

    /** Commits to a group that has a member. */
    private static void member(Judge judge, short v) throws Exception {
        String g = "cmember-v" + v;
        judge.save("cm1", judge.prepare(ApiKeys.JOIN_GROUP, 3, "{groupId:'" + g + "', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'',"
            + " protocolType:'consumer', protocols:[{name:'range',metadata:'m'}]}"), "/memberId");
        String one = commit(g, "orders", "{partitionIndex:0,committedOffset:5}", "");
        judge.ask("of a member before it has synced", ApiKeys.OFFSET_COMMIT, v, one.replace("Epoch:-1", "Epoch:1").replace("memberId:''", "memberId:'$cm1'"));
        judge.prepare(ApiKeys.SYNC_GROUP, 3, "{groupId:'" + g + "', generationId:1, memberId:'$cm1', assignments:[{memberId:'$cm1',assignment:'all'}]}");
        judge.ask("of a member", ApiKeys.OFFSET_COMMIT, v, one.replace("Epoch:-1", "Epoch:1").replace("memberId:''", "memberId:'$cm1'"));
        judge.ask("of a member, wrong generation", ApiKeys.OFFSET_COMMIT, v, one.replace("Epoch:-1", "Epoch:9").replace("memberId:''", "memberId:'$cm1'"));
        judge.ask("of a member, generation -1", ApiKeys.OFFSET_COMMIT, v, one.replace("memberId:''", "memberId:'$cm1'"));
        judge.ask("of another one", ApiKeys.OFFSET_COMMIT, v, one.replace("Epoch:-1", "Epoch:1").replace("memberId:''", "memberId:'nobody'"));
        judge.ask("of no member to a group with members", ApiKeys.OFFSET_COMMIT, v, one);
        judge.ask("of an unknown instance", ApiKeys.OFFSET_COMMIT, v, one.replace("Epoch:-1", "Epoch:1").replace("memberId:''", "memberId:'$cm1', groupInstanceId:'i'"));
        judge.prepare(ApiKeys.LEAVE_GROUP, 2, "{groupId:'" + g + "', memberId:'$cm1'}");
        judge.ask("of who has left", ApiKeys.OFFSET_COMMIT, v, one.replace("Epoch:-1", "Epoch:1").replace("memberId:''", "memberId:'$cm1'"));
    }

    private static void fetched(Judge judge) throws Exception {
        judge.prepare(ApiKeys.OFFSET_COMMIT, 7, commit("f", "orders", "{partitionIndex:0,committedOffset:5,committedLeaderEpoch:0,committedMetadata:'note'}", ""));
        judge.prepare(ApiKeys.OFFSET_COMMIT, 7, commit("f2", "single", "{partitionIndex:0,committedOffset:6}", ""));
        for (short v : judge.versions(ApiKeys.OFFSET_FETCH)) {
            String topic = "{name:'orders', topicId:'$id:orders', partitionIndexes:[0,1]}";
            String[][] lists = {
                {"known", topic}, {"a partition that is not there", "{name:'orders', topicId:'$id:orders', partitionIndexes:[9]}"},
                {"an unknown topic", "{name:'nowhere', topicId:'$id:nowhere', partitionIndexes:[0]}"}, {"no topic", ""},
                {"no partition", "{name:'orders', topicId:'$id:orders', partitionIndexes:[]}"},
                {"twice the same", topic + "," + topic},
            };
            for (String[] one : lists) {
                String topics = v < 10 ? one[1].replaceAll("topicId:'[^']*',", "") : one[1];
                String plain = v < 8 ? one[1].replaceAll("topicId:'[^']*',", "") : topics;
                judge.ask(one[0], ApiKeys.OFFSET_FETCH, v, v < 8 ? "{groupId:'f', topics:[" + plain + "]}" : "{groups:[{groupId:'f', topics:[" + topics + "]}]}");
                judge.ask(one[0] + ", of an unknown group", ApiKeys.OFFSET_FETCH, v,
                    v < 8 ? "{groupId:'nowhere', topics:[" + plain + "]}" : "{groups:[{groupId:'nowhere', topics:[" + topics + "]}]}");
            }
            if (v >= 2) {
                judge.ask("all", ApiKeys.OFFSET_FETCH, v, v < 8 ? "{groupId:'f', topics:null}" : "{groups:[{groupId:'f', topics:null}]}");
                judge.ask("all of an unknown group", ApiKeys.OFFSET_FETCH, v, v < 8 ? "{groupId:'nowhere', topics:null}" : "{groups:[{groupId:'nowhere', topics:null}]}");
            }
            if (v >= 7) {
                judge.ask("stable ones", ApiKeys.OFFSET_FETCH, v, v < 8 ? "{requireStable:true, groupId:'f', topics:null}"
                    : "{requireStable:true, groups:[{groupId:'f', topics:null}]}");
            }
            String all = "topics:null";
            judge.ask("without a group", ApiKeys.OFFSET_FETCH, v, v < 8 ? "{groupId:'', topics:[]}" : "{groups:[{groupId:''," + all + "}]}");
            if (v >= 8) {
                judge.ask("several groups", ApiKeys.OFFSET_FETCH, v, "{groups:[{groupId:'f', topics:null},{groupId:'f2', topics:null},{groupId:'nowhere', topics:null}]}");
                judge.ask("one group twice", ApiKeys.OFFSET_FETCH, v, "{groups:[{groupId:'f', topics:null},{groupId:'f', topics:null}]}");
                judge.ask("no group", ApiKeys.OFFSET_FETCH, v, "{groups:[]}");
            }
            if (v >= 9) {
                judge.ask("of a member that is none", ApiKeys.OFFSET_FETCH, v, "{groups:[{groupId:'f', memberId:'nobody', memberEpoch:3, topics:null}]}");
                judge.ask("of a member that is none, epoch -1", ApiKeys.OFFSET_FETCH, v, "{groups:[{groupId:'f', memberId:'nobody', memberEpoch:-1, topics:null}]}");
            }
        }
    }

    private static void deleted(Judge judge) throws Exception {
        judge.prepare(ApiKeys.OFFSET_COMMIT, 7, commit("od", "orders", "{partitionIndex:0,committedOffset:5},{partitionIndex:1,committedOffset:6}", ""));
        judge.save("od1", judge.prepare(ApiKeys.JOIN_GROUP, 3, "{groupId:'odm', sessionTimeoutMs:30000, rebalanceTimeoutMs:30000, memberId:'',"
            + " protocolType:'consumer', protocols:[{name:'range',metadata:'not a subscription'}]}"), "/memberId");
        judge.each(ApiKeys.OFFSET_DELETE,
            "known", "{groupId:'od', topics:[{name:'orders',partitions:[{partitionIndex:0}]}]}",
            "known no more", "{groupId:'od', topics:[{name:'orders',partitions:[{partitionIndex:0}]}]}",
            "a partition that is not there", "{groupId:'od', topics:[{name:'orders',partitions:[{partitionIndex:9}]}]}",
            "an unknown topic", "{groupId:'od', topics:[{name:'nowhere',partitions:[{partitionIndex:0}]}]}",
            "twice the same", "{groupId:'od', topics:[{name:'orders',partitions:[{partitionIndex:1},{partitionIndex:1}]}]}",
            "no topic", "{groupId:'od', topics:[]}",
            "of an unknown group", "{groupId:'nowhere', topics:[{name:'orders',partitions:[{partitionIndex:0}]}]}",
            "without a group", "{groupId:'', topics:[{name:'orders',partitions:[{partitionIndex:0}]}]}",
            "of a group with members", "{groupId:'odm', topics:[{name:'orders',partitions:[{partitionIndex:0}]}]}");
        judge.ask("after deletion of offsets", ApiKeys.OFFSET_FETCH, 8, "{groups:[{groupId:'od', topics:null}]}");
        judge.ask("after deletion of offsets", ApiKeys.DESCRIBE_GROUPS, 5, "{groups:['od']}");
    }
}
