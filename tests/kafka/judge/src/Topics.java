import org.apache.kafka.common.protocol.ApiKeys;

/** Topics and the cluster: what creates, changes, deletes and describes them. */
final class Topics {
    /** Topics that both have at all times. */
    private static final String ALWAYS = "orders|single|described";

    private Topics() {}

    static void run(Judge judge) throws Exception {
        create(judge);
        partitions(judge);
        metadata(judge);
        describe(judge);
        cluster(judge);
        delete(judge);
    }

    private static String topic(String fields) {
        return "{timeoutMs:10000, topics:[{numPartitions:1, replicationFactor:1, " + fields + "}]}";
    }

    private static void create(Judge judge) throws Exception {
        String long250 = "x".repeat(250);
        String long249 = "y".repeat(246);
        judge.each(ApiKeys.CREATE_TOPICS,
            "ordinary", topic("name:'made@', numPartitions:3"),
            "with settings", topic("name:'set@', configs:[{name:'retention.ms',value:'3600000'},{name:'cleanup.policy',value:'compact'}]"),
            "with defaults", topic("name:'default@', numPartitions:-1, replicationFactor:-1"),
            "that exists", topic("name:'made@'"),
            "only tried", "{timeoutMs:10000, validateOnly:true, topics:[{name:'tried@', numPartitions:2, replicationFactor:1}]}",
            "only tried, that exists", "{timeoutMs:10000, validateOnly:true, topics:[{name:'made@', numPartitions:2, replicationFactor:1}]}",
            "no topic", "{timeoutMs:10000, topics:[]}",
            "without a name", topic("name:''"),
            "a dot", topic("name:'.'"),
            "two dots", topic("name:'..'"),
            "a dot at the end of a topic", topic("name:'end@.'"),
            "two dots in a row in a topic", topic("name:'row@..x'"),
            "a space in the name", topic("name:'a b'"),
            "a letter beyond ASCII", topic("name:'\u00e4'"),
            "a name too long", topic("name:'" + long250 + "'"),
            "the longest name", topic("name:'" + long249 + "@'"),
            "dots and underscores that collide", topic("name:'made_a@'"),
            "dots and underscores that collide, again", topic("name:'made.a@'"),
            "a name of Kafka's own", topic("name:'__consumer_offsets'"),
            "0 partitions", topic("name:'zero@', numPartitions:0"),
            "-2 partitions", topic("name:'minus@', numPartitions:-2"),
            "0 replicas", topic("name:'bare@', replicationFactor:0"),
            "-2 replicas", topic("name:'less@', replicationFactor:-2"),
            "3 replicas", topic("name:'three@', replicationFactor:3"),
            "assigned", topic("name:'assigned@', numPartitions:-1, replicationFactor:-1, assignments:[{partitionIndex:0,brokerIds:[%]},{partitionIndex:1,brokerIds:[%]}]"),
            "assigned, with a count", topic("name:'counted@', numPartitions:2, assignments:[{partitionIndex:0,brokerIds:[%]}]"),
            "assigned to a broker that is not there", topic("name:'there@', numPartitions:-1, replicationFactor:-1, assignments:[{partitionIndex:0,brokerIds:[77]}]"),
            "assigned to one broker twice", topic("name:'again@', numPartitions:-1, replicationFactor:-1, assignments:[{partitionIndex:0,brokerIds:[%,%]}]"),
            "assigned to none", topic("name:'nobody@', numPartitions:-1, replicationFactor:-1, assignments:[{partitionIndex:0,brokerIds:[]}]"),
            "assigned with a gap", topic("name:'gap@', numPartitions:-1, replicationFactor:-1, assignments:[{partitionIndex:0,brokerIds:[%]},{partitionIndex:2,brokerIds:[%]}]"),
            "assigned from 1", topic("name:'late@', numPartitions:-1, replicationFactor:-1, assignments:[{partitionIndex:1,brokerIds:[%]}]"),
            "twice the same", "{timeoutMs:10000, topics:[{name:'twice@', numPartitions:1, replicationFactor:1},{name:'twice@', numPartitions:1, replicationFactor:1},{name:'beside@', numPartitions:1, replicationFactor:1}]}",
            "a setting that is not there", topic("name:'bad1@', configs:[{name:'no.such.setting',value:'1'}]"),
            "a setting that is no number", topic("name:'bad2@', configs:[{name:'retention.ms',value:'soon'}]"),
            "a setting out of range", topic("name:'bad3@', configs:[{name:'segment.bytes',value:'1'}]"),
            "a setting without a value", topic("name:'bad4@', configs:[{name:'retention.ms',value:null}]"),
            "a setting twice", topic("name:'bad5@', configs:[{name:'retention.ms',value:'1000'},{name:'retention.ms',value:'2000'}]"),
            "an unknown cleanup", topic("name:'bad6@', configs:[{name:'cleanup.policy',value:'burn'}]"),
            "compression.type gzip", topic("name:'gzip@', configs:[{name:'compression.type',value:'gzip'}]"),
            "log append time", topic("name:'append@', configs:[{name:'message.timestamp.type',value:'LogAppendTime'}]"),
            "min.insync.replicas 2", topic("name:'insync@', configs:[{name:'min.insync.replicas',value:'2'}]"),
            "several, one of them bad", "{timeoutMs:10000, topics:[{name:'good@', numPartitions:1, replicationFactor:1},{name:'b d', numPartitions:1, replicationFactor:1}]}",
            "no time to wait", "{timeoutMs:0, topics:[{name:'hasty@', numPartitions:1, replicationFactor:1}]}");
    }

    private static String more(String fields) {
        return "{timeoutMs:10000, topics:[{" + fields + "}]}";
    }

    private static void partitions(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.CREATE_PARTITIONS)) {
            judge.topic("grow-v" + v, 2, "");
        }
        judge.each(ApiKeys.CREATE_PARTITIONS,
            "only tried", "{timeoutMs:10000, validateOnly:true, topics:[{name:'grow@', count:9}]}",
            "one more", more("name:'grow@', count:3"),
            "as many", more("name:'grow@', count:3"),
            "fewer", more("name:'grow@', count:1"),
            "0", more("name:'grow@', count:0"),
            "-1", more("name:'grow@', count:-1"),
            "of an unknown topic", more("name:'nowhere', count:3"),
            "of a bad name", more("name:'a b', count:3"),
            "without a name", more("name:'', count:3"),
            "assigned", more("name:'grow@', count:5, assignments:[{brokerIds:[%]},{brokerIds:[%]}]"),
            "assigned, too few", more("name:'grow@', count:7, assignments:[{brokerIds:[%]}]"),
            "assigned to a broker that is not there", more("name:'grow@', count:6, assignments:[{brokerIds:[77]}]"),
            "assigned to none", more("name:'grow@', count:6, assignments:[{brokerIds:[]}]"),
            "assigned, an empty list", more("name:'grow@', count:6, assignments:[]"),
            "twice the same", "{timeoutMs:10000, topics:[{name:'grow@', count:8},{name:'grow@', count:9}]}",
            "no topic", "{timeoutMs:10000, topics:[]}");
    }

    private static void metadata(Judge judge) throws Exception {
        judge.topic("described", 2, "");
        for (short v : judge.versions(ApiKeys.METADATA)) {
            judge.ask("named", ApiKeys.METADATA, v, "{topics:[{name:'described'}]}");
            judge.ask("several", ApiKeys.METADATA, v, "{topics:[{name:'described'},{name:'orders'}]}");
            judge.ask("twice the same", ApiKeys.METADATA, v, "{topics:[{name:'described'},{name:'described'}]}");
            judge.ask("no topic", ApiKeys.METADATA, v, v == 0 ? "{topics:[{name:'described'}]}" : "{topics:[]}");
            judge.askOnly(ALWAYS, "all", ApiKeys.METADATA, v, v == 0 ? "{topics:[]}" : "{topics:null}");
            judge.ask("unknown, not to be created", ApiKeys.METADATA, v, "{allowAutoTopicCreation:false, topics:[{name:'nowhere'}]}");
            judge.ask("a bad name", ApiKeys.METADATA, v, "{topics:[{name:'a b'}]}");
            judge.ask("without a name", ApiKeys.METADATA, v, "{topics:[{name:''}]}");
            judge.ask("two dots", ApiKeys.METADATA, v, "{topics:[{name:'..'}]}");
            judge.ask("a name too long", ApiKeys.METADATA, v, "{topics:[{name:'" + "x".repeat(250) + "'}]}");
            judge.ask("what may be done", ApiKeys.METADATA, v, "{includeTopicAuthorizedOperations:true, topics:[{name:'described'}]}");
            judge.ask("what may be done to the cluster", ApiKeys.METADATA, v,
                "{includeClusterAuthorizedOperations:true, includeTopicAuthorizedOperations:true, topics:[{name:'described'}]}");
            judge.ask("unknown, to be created", ApiKeys.METADATA, v, "{topics:[{name:'automatic@'}]}");
            Thread.sleep(100);
            judge.ask("created by being asked for", ApiKeys.METADATA, v, "{topics:[{name:'automatic@'}]}");
            if (v >= 10) {
                judge.ask("by id", ApiKeys.METADATA, v, "{topics:[{name:null, topicId:'$id:described'}]}");
                judge.ask("by id and no name, as Java asks", ApiKeys.METADATA, v, "{topics:[{name:'', topicId:'$id:described'}]}");
                judge.ask("by an unknown id and no name, as Java asks", ApiKeys.METADATA, v, "{topics:[{name:'', topicId:'$none'}]}");
                judge.ask("by an unknown id", ApiKeys.METADATA, v, "{topics:[{name:null, topicId:'$none'}]}");
                judge.ask("by no id and no name", ApiKeys.METADATA, v, "{topics:[{name:null, topicId:'$zero'}]}");
                judge.ask("by id and name", ApiKeys.METADATA, v, "{topics:[{name:'described', topicId:'$id:described'}]}");
                judge.ask("some by id, some by name", ApiKeys.METADATA, v,
                    "{topics:[{name:null, topicId:'$id:described'},{name:'orders', topicId:'$zero'}]}");
            }
        }
    }

    private static void describe(Judge judge) throws Exception {
        judge.each(ApiKeys.DESCRIBE_TOPIC_PARTITIONS,
            "named", "{responsePartitionLimit:100, topics:[{name:'described'}]}",
            "several", "{responsePartitionLimit:100, topics:[{name:'orders'},{name:'described'}]}",
            "unknown", "{responsePartitionLimit:100, topics:[{name:'nowhere'}]}",
            "a bad name", "{responsePartitionLimit:100, topics:[{name:'a b'}]}",
            "without a name", "{responsePartitionLimit:100, topics:[{name:''}]}",
            "twice the same", "{responsePartitionLimit:100, topics:[{name:'described'},{name:'described'}]}",
            "one partition at a time", "{responsePartitionLimit:1, topics:[{name:'described'},{name:'orders'}]}",
            "at a limit of 0", "{responsePartitionLimit:0, topics:[{name:'described'}]}",
            "at a limit of -1", "{responsePartitionLimit:-1, topics:[{name:'described'}]}",
            "from a cursor", "{responsePartitionLimit:100, topics:[{name:'described'},{name:'orders'}], cursor:{topicName:'described',partitionIndex:1}}",
            "from a cursor between the topics", "{responsePartitionLimit:100, topics:[{name:'described'},{name:'orders'}], cursor:{topicName:'f',partitionIndex:0}}",
            "from a cursor beyond the last partition", "{responsePartitionLimit:100, topics:[{name:'described'}], cursor:{topicName:'described',partitionIndex:9}}",
            "from a cursor below 0", "{responsePartitionLimit:100, topics:[{name:'described'}], cursor:{topicName:'described',partitionIndex:-1}}");
        judge.askOnly(ALWAYS, "no topic: all", ApiKeys.DESCRIBE_TOPIC_PARTITIONS, 0, "{responsePartitionLimit:2000, topics:[]}");
        judge.each(ApiKeys.DESCRIBE_LOG_DIRS,
            "named", "{topics:[{topic:'described',partitions:[0,1]}]}",
            "a partition that is not there", "{topics:[{topic:'described',partitions:[0,9]}]}",
            "unknown", "{topics:[{topic:'nowhere',partitions:[0]}]}",
            "no partition", "{topics:[{topic:'described',partitions:[]}]}",
            "no topic", "{topics:[]}",
            "twice the same", "{topics:[{topic:'described',partitions:[0]},{topic:'described',partitions:[0,0]}]}");
        for (short v : judge.versions(ApiKeys.DESCRIBE_LOG_DIRS)) {
            judge.askOnly(ALWAYS, "all", ApiKeys.DESCRIBE_LOG_DIRS, v, "{topics:null}");
        }
    }

    private static void cluster(Judge judge) throws Exception {
        judge.each(ApiKeys.DESCRIBE_CLUSTER,
            "ordinary", "{}",
            "what may be done", "{includeClusterAuthorizedOperations:true}",
            "brokers", "{endpointType:1}",
            "controllers", "{endpointType:2}",
            "of an unknown kind", "{endpointType:9}",
            "with fenced brokers", "{includeFencedBrokers:true}");
        judge.each(ApiKeys.DESCRIBE_QUORUM,
            "ordinary", "{topics:[{topicName:'__cluster_metadata', partitions:[{partitionIndex:0}]}]}",
            "of another topic", "{topics:[{topicName:'orders', partitions:[{partitionIndex:0}]}]}",
            "no topic", "{topics:[]}");
        judge.each(ApiKeys.ELECT_LEADERS,
            "preferred", "{electionType:0, timeoutMs:5000, topicPartitions:[{topic:'orders',partitions:[0,1]}]}",
            "unclean", "{electionType:1, timeoutMs:5000, topicPartitions:[{topic:'orders',partitions:[0]}]}",
            "of an unknown kind", "{electionType:7, timeoutMs:5000, topicPartitions:[{topic:'orders',partitions:[0]}]}",
            "unknown", "{timeoutMs:5000, topicPartitions:[{topic:'nowhere',partitions:[0]},{topic:'orders',partitions:[9]}]}",
            "no topic", "{timeoutMs:5000, topicPartitions:[]}");
        for (short v : judge.versions(ApiKeys.ELECT_LEADERS)) {
            judge.askOnly(ALWAYS, "all", ApiKeys.ELECT_LEADERS, v, "{timeoutMs:5000, topicPartitions:null}");
        }
        judge.each(ApiKeys.ALTER_PARTITION_REASSIGNMENTS,
            "to where it is", "{timeoutMs:5000, topics:[{name:'orders',partitions:[{partitionIndex:0,replicas:[%]}]}]}",
            "to a broker that is not there", "{timeoutMs:5000, topics:[{name:'orders',partitions:[{partitionIndex:0,replicas:[77]}]}]}",
            "to two", "{timeoutMs:5000, topics:[{name:'orders',partitions:[{partitionIndex:0,replicas:[%,%]}]}]}",
            "to none", "{timeoutMs:5000, topics:[{name:'orders',partitions:[{partitionIndex:0,replicas:[]}]}]}",
            "given up", "{timeoutMs:5000, topics:[{name:'orders',partitions:[{partitionIndex:0,replicas:null}]}]}",
            "unknown", "{timeoutMs:5000, topics:[{name:'nowhere',partitions:[{partitionIndex:0,replicas:[%]}]},{name:'orders',partitions:[{partitionIndex:9,replicas:[%]}]}]}",
            "no topic", "{timeoutMs:5000, topics:[]}");
        judge.each(ApiKeys.LIST_PARTITION_REASSIGNMENTS,
            "all", "{timeoutMs:5000, topics:null}",
            "named", "{timeoutMs:5000, topics:[{name:'orders',partitionIndexes:[0]}]}",
            "unknown", "{timeoutMs:5000, topics:[{name:'nowhere',partitionIndexes:[0]}]}",
            "no topic", "{timeoutMs:5000, topics:[]}");
        judge.each(ApiKeys.ALTER_REPLICA_LOG_DIRS,
            "to a folder that is not there", "{dirs:[{path:'/nowhere',topics:[{name:'orders',partitions:[0]}]}]}",
            "unknown", "{dirs:[{path:'/nowhere',topics:[{name:'nowhere',partitions:[0]}]}]}",
            "to a relative path", "{dirs:[{path:'nowhere',topics:[{name:'orders',partitions:[0]}]}]}",
            "none", "{dirs:[]}");
        for (short v : judge.versions(ApiKeys.LIST_CONFIG_RESOURCES)) {
            judge.askOnly(ALWAYS, "all", ApiKeys.LIST_CONFIG_RESOURCES, v, "{}");
            judge.askOnly(ALWAYS, "topics", ApiKeys.LIST_CONFIG_RESOURCES, v, "{resourceTypes:[2]}");
        }
        judge.each(ApiKeys.LIST_CONFIG_RESOURCES, "groups", "{resourceTypes:[32]}",
            "brokers", "{resourceTypes:[4]}", "of an unknown kind", "{resourceTypes:[99]}");
        judge.each(ApiKeys.GET_TELEMETRY_SUBSCRIPTIONS, "ordinary", "{clientInstanceId:'$none'}");
        judge.each(ApiKeys.DESCRIBE_CLIENT_QUOTAS, "all", "{components:[]}", "of a user", "{components:[{entityType:'user',matchType:0,match:'u'}]}",
            "of an unknown kind", "{components:[{entityType:'planet',matchType:0,match:'u'}]}");
        judge.each(ApiKeys.DESCRIBE_USER_SCRAM_CREDENTIALS, "all", "{users:null}", "unknown", "{users:[{name:'nobody'}]}",
            "twice the same", "{users:[{name:'nobody'},{name:'nobody'}]}", "without a name", "{users:[{name:''}]}");
        judge.each(ApiKeys.ALTER_USER_SCRAM_CREDENTIALS,
            "deleted, unknown", "{deletions:[{name:'nobody',mechanism:1}]}",
            "of an unknown mechanism", "{deletions:[{name:'nobody',mechanism:9}]}",
            "upserted", "{upsertions:[{name:'u@',mechanism:1,iterations:4096,salt:'salt',saltedPassword:'password'}]}",
            "too few iterations", "{upsertions:[{name:'u@',mechanism:1,iterations:1,salt:'salt',saltedPassword:'password'}]}");
        judge.each(ApiKeys.DESCRIBE_USER_SCRAM_CREDENTIALS, "known", "{users:[{name:'u-v0'}]}");
        String any = "resourceTypeFilter:1, patternTypeFilter:1, operation:1, permissionType:1";
        judge.each(ApiKeys.DESCRIBE_ACLS, "all", "{" + any + "}");
        judge.each(ApiKeys.CREATE_ACLS, "ordinary",
            "{creations:[{resourceType:2,resourceName:'orders',resourcePatternType:3,principal:'User:u',host:'*',operation:3,permissionType:3}]}",
            "none", "{creations:[]}");
        judge.each(ApiKeys.DELETE_ACLS, "all", "{filters:[{" + any + "}]}", "none", "{filters:[]}");
    }

    private static void delete(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.DELETE_TOPICS)) {
            for (String name : new String[] {"gone1", "gone2", "gone3"}) {
                judge.topic(name + "-v" + v, 1, "");
            }
            for (String[] one : new String[][] {{"known", "gone1@"}, {"known no more", "gone1@"}, {"a bad name", "a b"}, {"without a name", ""}}) {
                judge.ask(one[0], ApiKeys.DELETE_TOPICS, v, v < 6 ? "{timeoutMs:10000, topicNames:['" + one[1] + "']}"
                    : "{timeoutMs:10000, topics:[{name:'" + one[1] + "'}]}");
            }
            judge.ask("twice the same", ApiKeys.DELETE_TOPICS, v, v < 6 ? "{timeoutMs:10000, topicNames:['gone2@','gone2@','nowhere']}"
                : "{timeoutMs:10000, topics:[{name:'gone2@'},{name:'gone2@'},{name:'nowhere'}]}");
            judge.ask("no topic", ApiKeys.DELETE_TOPICS, v, "{timeoutMs:10000}");
            judge.ask("deleted and asked for", ApiKeys.METADATA, 12, "{allowAutoTopicCreation:false, topics:[{name:'gone1-v" + v + "'}]}");
            if (v >= 6) {
                judge.ask("by id and no name, as Java asks", ApiKeys.METADATA, v, "{topics:[{name:'', topicId:'$id:described'}]}");
                judge.ask("by an unknown id and no name, as Java asks", ApiKeys.METADATA, v, "{topics:[{name:'', topicId:'$none'}]}");
                judge.ask("by an unknown id", ApiKeys.DELETE_TOPICS, v, "{timeoutMs:10000, topics:[{name:null,topicId:'$none'}]}");
                judge.ask("by no id and no name", ApiKeys.DELETE_TOPICS, v, "{timeoutMs:10000, topics:[{name:null,topicId:'$zero'}]}");
                judge.ask("by id and name", ApiKeys.DELETE_TOPICS, v, "{timeoutMs:10000, topics:[{name:'gone3@',topicId:'$id:gone3@'}]}");
                judge.ask("by id and by name", ApiKeys.DELETE_TOPICS, v,
                    "{timeoutMs:10000, topics:[{name:null,topicId:'$id:gone3@'},{name:'gone3@',topicId:'$zero'}]}");
                judge.ask("by id", ApiKeys.DELETE_TOPICS, v, "{timeoutMs:10000, topics:[{name:null,topicId:'$id:gone3@'}]}");
            }
        }
    }
}
