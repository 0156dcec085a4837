import org.apache.kafka.common.protocol.ApiKeys;

/** Settings of topics, brokers and groups. */
final class Configs {
    private Configs() {}

    private static String of(String resource, String more) {
        return "{resources:[{" + resource + "}]" + more + "}";
    }

    static void run(Judge judge) throws Exception {
        judge.topic("configured", 1, "{name:'retention.ms',value:'3600000'},{name:'cleanup.policy',value:'compact,delete'}");
        judge.each(ApiKeys.DESCRIBE_CONFIGS,
            "of a topic", of("resourceType:2, resourceName:'configured', configurationKeys:null", ""),
            "of a topic, with synonyms and documentation",
            of("resourceType:2, resourceName:'configured', configurationKeys:['retention.ms','segment.bytes']", ", includeSynonyms:true, includeDocumentation:true"),
            "two of a topic", of("resourceType:2, resourceName:'configured', configurationKeys:['retention.ms','cleanup.policy']", ""),
            "unknown ones of a topic", of("resourceType:2, resourceName:'configured', configurationKeys:['no.such','retention.ms']", ""),
            "an empty list of a topic", of("resourceType:2, resourceName:'configured', configurationKeys:[]", ""),
            "of an unknown topic", of("resourceType:2, resourceName:'nowhere', configurationKeys:null", ""),
            "of a bad name", of("resourceType:2, resourceName:'a b', configurationKeys:null", ""),
            "without a name", of("resourceType:2, resourceName:'', configurationKeys:null", ""),
            "of the broker", of("resourceType:4, resourceName:'%', configurationKeys:null", ""),
            "some of the broker", of("resourceType:4, resourceName:'%', configurationKeys:['num.partitions','auto.create.topics.enable','advertised.listeners']", ", includeSynonyms:true"),
            "of another broker", of("resourceType:4, resourceName:'77', configurationKeys:null", ""),
            "of all brokers", of("resourceType:4, resourceName:'', configurationKeys:null", ""),
            "of a broker that is no number", of("resourceType:4, resourceName:'x', configurationKeys:null", ""),
            "of the broker's logs", of("resourceType:8, resourceName:'%', configurationKeys:['root']", ""),
            "of client metrics", of("resourceType:16, resourceName:'m', configurationKeys:null", ""),
            "of a group", of("resourceType:32, resourceName:'g', configurationKeys:null", ""),
            "of an unknown kind", of("resourceType:99, resourceName:'x', configurationKeys:null", ""),
            "of kind 0", of("resourceType:0, resourceName:'x', configurationKeys:null", ""),
            "twice the same", "{resources:[{resourceType:2,resourceName:'configured',configurationKeys:['retention.ms']},"
                + "{resourceType:2,resourceName:'configured',configurationKeys:['retention.ms']}]}",
            "of nothing", "{resources:[]}");
        alter(judge, ApiKeys.ALTER_CONFIGS, "");
        alter(judge, ApiKeys.INCREMENTAL_ALTER_CONFIGS, "configOperation:0,");
        incremental(judge);
        values(judge);
        client(judge);
    }

    private static void alter(Judge judge, ApiKeys key, String set) throws Exception {
        String prefix = key == ApiKeys.ALTER_CONFIGS ? "whole" : "step";
        for (short v : judge.versions(key)) {
            String topic = prefix + "-v" + v;
            judge.topic(topic, 1, "{name:'retention.ms',value:'3600000'}");
            String one = "resourceType:2, resourceName:'" + topic + "', ";
            String[] asked = {
                "one", of(one + "configs:[{name:'delete.retention.ms'," + set + "value:'2097152'}]", ""),
                "one that is not there", of(one + "configs:[{name:'no.such'," + set + "value:'1'}]", ""),
                "one that is no number", of(one + "configs:[{name:'retention.ms'," + set + "value:'soon'}]", ""),
                "one out of range", of(one + "configs:[{name:'retention.ms'," + set + "value:'-7'}]", ""),
                "one without a value", of(one + "configs:[{name:'retention.ms'," + set + "value:null}]", ""),
                "one without a name", of(one + "configs:[{name:''," + set + "value:'1'}]", ""),
                "one with an empty value", of(one + "configs:[{name:'retention.ms'," + set + "value:''}]", ""),
                "one twice", of(one + "configs:[{name:'retention.ms'," + set + "value:'1000'},{name:'retention.ms'," + set + "value:'2000'}]", ""),
                "only tried", of(one + "configs:[{name:'retention.ms'," + set + "value:'5000'}]", ", validateOnly:true"),
                "none", of(one + "configs:[]", ""),
                "of an unknown topic", of("resourceType:2, resourceName:'nowhere', configs:[{name:'retention.ms'," + set + "value:'5000'}]", ""),
                "of a bad name", of("resourceType:2, resourceName:'a b', configs:[{name:'retention.ms'," + set + "value:'5000'}]", ""),
                "of a topic without a name", of("resourceType:2, resourceName:'', configs:[{name:'retention.ms'," + set + "value:'5000'}]", ""),
                "of another broker", of("resourceType:4, resourceName:'77', configs:[{name:'log.cleaner.threads'," + set + "value:'1'}]", ""),
                "of a broker that is no number", of("resourceType:4, resourceName:'x', configs:[{name:'log.cleaner.threads'," + set + "value:'1'}]", ""),
                "of the broker, one that is fixed", of("resourceType:4, resourceName:'%', configs:[{name:'node.id'," + set + "value:'5'}]", ""),
                "of the broker, one that is not there", of("resourceType:4, resourceName:'%', configs:[{name:'no.such'," + set + "value:'5'}]", ""),
                "of an unknown kind", of("resourceType:99, resourceName:'x', configs:[{name:'a'," + set + "value:'5'}]", ""),
                "twice the same", "{resources:[{" + one + "configs:[{name:'retention.ms'," + set + "value:'1000'}]},{" + one
                    + "configs:[{name:'retention.ms'," + set + "value:'1000'}]}]}",
                "of nothing", "{resources:[]}",
            };
            for (int at = 0; at < asked.length; at += 2) {
                // Each from the same.
                judge.prepare(ApiKeys.INCREMENTAL_ALTER_CONFIGS, 1, of(one + "configs:[{name:'retention.ms',configOperation:0,value:'3600000'},"
                    + "{name:'delete.retention.ms',configOperation:1,value:null}]", ""));
                if (key == ApiKeys.ALTER_CONFIGS && asked[at].equals("twice the same")) {
                    // Kafka does not answer it.
                    continue;
                }
                judge.ask(asked[at], key, v, asked[at + 1]);
                // What it came to.
                judge.ask("after " + prefix + ": " + asked[at], ApiKeys.DESCRIBE_CONFIGS, 4,
                    of("resourceType:2, resourceName:'" + topic + "', configurationKeys:['retention.ms','delete.retention.ms']", ""));
            }
        }
    }

    private static void incremental(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.INCREMENTAL_ALTER_CONFIGS)) {
            String topic = "list-v" + v;
            judge.topic(topic, 1, "");
            String one = "resourceType:2, resourceName:'" + topic + "', ";
            String[] asked = {
                "appended to a list", of(one + "configs:[{name:'cleanup.policy',configOperation:2,value:'compact'}]", ""),
                "appended again", of(one + "configs:[{name:'cleanup.policy',configOperation:2,value:'compact'}]", ""),
                "taken from a list", of(one + "configs:[{name:'cleanup.policy',configOperation:3,value:'delete'}]", ""),
                "taken though not in the list", of(one + "configs:[{name:'cleanup.policy',configOperation:3,value:'delete'}]", ""),
                "taken from a list, the last", of(one + "configs:[{name:'cleanup.policy',configOperation:3,value:'compact'}]", ""),
                "appended to what is no list", of(one + "configs:[{name:'retention.ms',configOperation:2,value:'1'}]", ""),
                "deleted", of(one + "configs:[{name:'cleanup.policy',configOperation:1,value:null}]", ""),
                "deleted though not set", of(one + "configs:[{name:'retention.ms',configOperation:1,value:null}]", ""),
                "deleted though not there", of(one + "configs:[{name:'no.such',configOperation:1,value:null}]", ""),
                "by an unknown operation", of(one + "configs:[{name:'retention.ms',configOperation:9,value:'1'}]", ""),
            };
            for (int at = 0; at < asked.length; at += 2) {
                judge.ask(asked[at], ApiKeys.INCREMENTAL_ALTER_CONFIGS, v, asked[at + 1]);
                judge.ask("after list: " + asked[at], ApiKeys.DESCRIBE_CONFIGS, 4,
                    of("resourceType:2, resourceName:'" + topic + "', configurationKeys:['retention.ms','cleanup.policy']", ""));
            }
        }
    }

    /** Each setting of a topic: set to a usual value, and described. */
    private static void values(Judge judge) throws Exception {
        String[] usual = {
            "cleanup.policy", "compact", "compression.type", "zstd", "compression.gzip.level", "5", "compression.lz4.level", "5",
            "compression.zstd.level", "5", "delete.retention.ms", "1000", "file.delete.delay.ms", "1000", "flush.messages", "1",
            "flush.ms", "1000", "follower.replication.throttled.replicas", "*", "index.interval.bytes", "1024",
            "leader.replication.throttled.replicas", "*", "max.compaction.lag.ms", "100000", "max.message.bytes", "2000000",
            "message.timestamp.after.max.ms", "1000", "message.timestamp.before.max.ms", "100000", "message.timestamp.type", "LogAppendTime",
            "min.cleanable.dirty.ratio", "0.7", "min.compaction.lag.ms", "1000", "min.insync.replicas", "1", "preallocate", "true",
            "remote.storage.enable", "true", "local.retention.ms", "1000", "local.retention.bytes", "1000", "retention.bytes", "1000000",
            "retention.ms", "1000000", "segment.bytes", "2097152", "segment.index.bytes", "4096", "segment.jitter.ms", "10",
            "segment.ms", "100000", "unclean.leader.election.enable", "true", "message.format.version", "3.0-IV1",
        };
        short v = judge.versions(ApiKeys.INCREMENTAL_ALTER_CONFIGS).get(judge.versions(ApiKeys.INCREMENTAL_ALTER_CONFIGS).size() - 1);
        for (int at = 0; at < usual.length; at += 2) {
            String topic = "value." + usual[at];
            judge.topic(topic, 1, "");
            judge.ask("set " + usual[at], ApiKeys.INCREMENTAL_ALTER_CONFIGS, v,
                of("resourceType:2, resourceName:'" + topic + "', configs:[{name:'" + usual[at] + "', value:'" + usual[at + 1] + "'}]", ""));
            judge.ask("set " + usual[at], ApiKeys.DESCRIBE_CONFIGS, 4,
                of("resourceType:2, resourceName:'" + topic + "', configurationKeys:['" + usual[at] + "']", ""));
        }
    }

    private static void client(Judge judge) throws Exception {
        judge.each(ApiKeys.ALTER_CLIENT_QUOTAS,
            "set", "{entries:[{entity:[{entityType:'user',entityName:'u'}],ops:[{key:'producer_byte_rate',value:1000000}]}]}",
            "an unknown key", "{entries:[{entity:[{entityType:'user',entityName:'u'}],ops:[{key:'no_such',value:1}]}]}",
            "none", "{entries:[]}");
    }
}
