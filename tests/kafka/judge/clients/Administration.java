import java.lang.reflect.Method;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Every call of Kafka's administration client. */
final class Administration {
    private final Checks checks;
    private final Admin admin;
    private final Traffic traffic;
    private final ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, "a1");
    private final TopicPartition first = new TopicPartition("a1", 0);

    Administration(Checks checks, Admin admin, String server) {
        this.checks = checks;
        this.admin = admin;
        this.traffic = new Traffic(checks, admin, server);
    }

    /** The state of a group, which the versions of the client call differently. */
    static String state(Object description) throws Exception {
        for (String name : List.of("groupState", "state")) {
            for (Method method : description.getClass().getMethods()) {
                if (method.getName().equals(name) && method.getParameterCount() == 0) {
                    return String.valueOf(method.invoke(description)).toUpperCase(java.util.Locale.ROOT);
                }
            }
        }
        throw new AssertionError("a description without a state");
    }

    /** A call that not every version of the client has; null then. */
    private Callable<KafkaFuture<?>> later(String name, String all, Object... arguments) {
        for (Method method : Admin.class.getMethods()) {
            if (!method.getName().equals(name) || method.getParameterCount() != arguments.length) {
                continue;
            }
            boolean fits = true;
            for (int at = 0; at < arguments.length; at++) {
                fits &= method.getParameterTypes()[at].isInstance(arguments[at]);
            }
            if (fits) {
                return () -> {
                    Object result = method.invoke(admin, arguments);
                    Method future = result.getClass().getMethod(all);
                    future.setAccessible(true);
                    Object found = future.invoke(result);
                    return found instanceof Map ? KafkaFuture.allOf(((Map<?, ?>) found).values().toArray(new KafkaFuture<?>[0])) : (KafkaFuture<?>) found;
                };
            }
        }
        return null;
    }

    private void asked(String name, String all, Object... arguments) {
        Callable<KafkaFuture<?>> call = later(name, all, arguments);
        if (call == null) {
            System.out.println("not in this client: " + name);
        } else {
            checks.clear(name, call);
        }
    }

    /** The number of the one node. */
    private int node() throws Exception {
        return admin.describeCluster().nodes().get().iterator().next().id();
    }

    void run() {
        cluster();
        topics();
        configs();
        records();
        groups();
        transactions();
        others();
    }

    private void cluster() {
        checks.works("describeCluster", () -> {
            Checks.equal(admin.describeCluster().nodes().get().size(), 1);
            Checks.that(admin.describeCluster().controller().get() != null, "no controller");
            Checks.that(!admin.describeCluster().clusterId().get().isEmpty(), "no cluster id");
        });
        checks.works("describeFeatures", () -> admin.describeFeatures().featureMetadata().get());
    }

    private void topics() {
        checks.works("createTopics", () -> {
            NewTopic one = new NewTopic("a1", 2, (short) 1).configs(Map.of("retention.ms", "3600000"));
            NewTopic two = new NewTopic("a2", Optional.empty(), Optional.empty());
            var result = admin.createTopics(List.of(one, two, new NewTopic("a3", 1, (short) 1)));
            result.all().get();
            Checks.equal(result.numPartitions("a1").get(), 2);
            Checks.equal(result.replicationFactor("a1").get(), 1);
            Checks.equal(result.config("a1").get().get("retention.ms").value(), "3600000");
            Checks.that(!result.topicId("a1").get().equals(Uuid.ZERO_UUID), "no id");
        });
        checks.refuses("createTopics, there", TopicExistsException.class, () -> admin.createTopics(List.of(new NewTopic("a1", 1, (short) 1))).all().get());
        checks.refuses("createTopics, bad name", InvalidTopicException.class, () -> admin.createTopics(List.of(new NewTopic("a b", 1, (short) 1))).all().get());
        checks.refuses("createTopics, 0 partitions", InvalidPartitionsException.class, () -> admin.createTopics(List.of(new NewTopic("a0", 0, (short) 1))).all().get());
        checks.refuses("createTopics, 3 replicas", InvalidReplicationFactorException.class,
            () -> admin.createTopics(List.of(new NewTopic("a0", 1, (short) 3))).all().get());
        checks.refuses("createTopics, bad setting", InvalidConfigurationException.class,
            () -> admin.createTopics(List.of(new NewTopic("a0", 1, (short) 1).configs(Map.of("retention.ms", "soon")))).all().get());
        checks.works("listTopics", () -> {
            Checks.that(admin.listTopics().names().get().containsAll(Set.of("a1", "a2", "a3")), "not all listed");
            Checks.that(admin.listTopics(new ListTopicsOptions().listInternal(true)).listings().get().size() >= 3, "not all listed");
        });
        checks.works("describeTopics by name", () -> {
            TopicDescription found = admin.describeTopics(List.of("a1", "a2")).allTopicNames().get().get("a1");
            Checks.equal(found.partitions().size(), 2);
            Checks.equal(found.partitions().get(0).leader().id(), found.partitions().get(0).isr().get(0).id());
        });
        checks.works("describeTopics, one partition at a time", () -> Checks.equal(admin.describeTopics(TopicCollection.ofTopicNames(List.of("a1")),
            new DescribeTopicsOptions().partitionSizeLimitPerResponse(1)).allTopicNames().get().get("a1").partitions().size(), 2));
        checks.works("describeTopics, what may be done", () -> admin.describeTopics(List.of("a1"),
            new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().get("a1").authorizedOperations());
        checks.works("describeTopics by id", () -> {
            Uuid id = admin.describeTopics(List.of("a1")).allTopicNames().get().get("a1").topicId();
            Checks.equal(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name(), "a1");
        });
        checks.refuses("describeTopics, unknown", UnknownTopicOrPartitionException.class, () -> admin.describeTopics(List.of("nowhere")).allTopicNames().get());
        checks.refuses("describeTopics, unknown id", UnknownTopicIdException.class,
            () -> admin.describeTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds().get());
        checks.works("createPartitions", () -> {
            admin.createPartitions(Map.of("a1", NewPartitions.increaseTo(4))).all().get();
            Checks.equal(admin.describeTopics(List.of("a1")).allTopicNames().get().get("a1").partitions().size(), 4);
        });
        checks.refuses("createPartitions, fewer", InvalidPartitionsException.class, () -> admin.createPartitions(Map.of("a1", NewPartitions.increaseTo(1))).all().get());
        checks.works("deleteTopics by name", () -> admin.deleteTopics(List.of("a2")).all().get());
        checks.works("deleteTopics by id", () -> {
            Uuid id = admin.describeTopics(List.of("a3")).allTopicNames().get().get("a3").topicId();
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            Checks.that(!admin.listTopics().names().get().contains("a3"), "a3 is listed");
        });
        checks.refuses("deleteTopics, unknown", UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of("nowhere")).all().get());
        checks.works("describeLogDirs", () -> {
            int node = node();
            Checks.that(admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).values().iterator().next().replicaInfos().containsKey(first),
                "a1 is in no folder");
        });
        checks.works("describeReplicaLogDirs", () -> {
            int node = node();
            TopicPartitionReplica replica = new TopicPartitionReplica("a1", 0, node);
            Checks.that(admin.describeReplicaLogDirs(List.of(replica)).all().get().get(replica).getCurrentReplicaLogDir() != null, "no folder");
        });
    }

    private void configs() {
        checks.works("describeConfigs of a topic", () -> {
            Config config = admin.describeConfigs(List.of(topic), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(topic);
            Checks.equal(config.get("retention.ms").value(), "3600000");
            Checks.equal(config.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            Checks.that(config.entries().size() > 10, config);
        });
        checks.works("describeConfigs of a broker", () -> {
            String node = admin.describeCluster().nodes().get().iterator().next().idString();
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node);
            Checks.that(!admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().isEmpty(), "no settings");
        });
        checks.works("incrementalAlterConfigs", () -> {
            for (AlterConfigOp op : List.of(new AlterConfigOp(new ConfigEntry("delete.retention.ms", "2097152"), AlterConfigOp.OpType.SET),
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SUBTRACT),
                new AlterConfigOp(new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE))) {
                admin.incrementalAlterConfigs(Map.of(topic, List.of(op))).all().get();
            }
            Config config = admin.describeConfigs(List.of(topic)).all().get().get(topic);
            Checks.equal(config.get("delete.retention.ms").value(), "2097152");
            Checks.equal(config.get("cleanup.policy").value(), "delete");
        });
        checks.refuses("incrementalAlterConfigs, bad value", InvalidConfigurationException.class, () -> admin.incrementalAlterConfigs(Map.of(topic,
            List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET)))).all().get());
        checks.refuses("describeConfigs, unknown", UnknownTopicOrPartitionException.class,
            () -> admin.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, "nowhere"))).all().get());
        Map<ConfigResource, Config> whole = Map.of(topic, new Config(List.of(new ConfigEntry("retention.ms", "7200000"))));
        asked("alterConfigs", "all", whole);
    }

    private void records() {
        checks.works("listOffsets and deleteRecords", () -> {
            try (KafkaProducer<String, String> producer = traffic.producer()) {
                for (int at = 0; at < 10; at++) {
                    producer.send(new ProducerRecord<>("a1", 0, 1_700_000_000_000L + at, "k" + at, "v")).get();
                }
            }
            Checks.equal(admin.listOffsets(Map.of(first, OffsetSpec.latest())).partitionResult(first).get().offset(), 10L);
            Checks.equal(admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first).get().offset(), 0L);
            Checks.equal(admin.listOffsets(Map.of(first, OffsetSpec.maxTimestamp())).partitionResult(first).get().offset(), 9L);
            Checks.equal(admin.listOffsets(Map.of(first, OffsetSpec.forTimestamp(1_700_000_000_003L))).partitionResult(first).get().offset(), 3L);
            Checks.equal(admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(first).get().lowWatermark(), 4L);
            Checks.equal(admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first).get().offset(), 4L);
        });
        checks.refuses("deleteRecords beyond the end", OffsetOutOfRangeException.class,
            () -> admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(400))).all().get());
        checks.clear("listOffsets, earliest local", () -> admin.listOffsets(Map.of(first, OffsetSpec.earliestLocal())).all());
        checks.clear("listOffsets, latest tiered", () -> admin.listOffsets(Map.of(first, OffsetSpec.latestTiered())).all());
    }

    private void groups() {
        checks.works("alterConsumerGroupOffsets and listConsumerGroupOffsets", () -> {
            admin.alterConsumerGroupOffsets("ag", Map.of(first, new OffsetAndMetadata(5, Optional.of(0), "note"))).all().get();
            OffsetAndMetadata found = admin.listConsumerGroupOffsets("ag").partitionsToOffsetAndMetadata().get().get(first);
            Checks.equal(found.offset(), 5L);
            Checks.equal(found.metadata(), "note");
        });
        checks.works("listConsumerGroups", () -> Checks.that(admin.listConsumerGroups().all().get().stream().anyMatch(group -> group.groupId().equals("ag")), "no ag"));
        checks.works("describeConsumerGroups", () -> Checks.equal(state(admin.describeConsumerGroups(List.of("ag")).all().get().get("ag")), "EMPTY"));
        asked("listGroups", "all");
        asked("describeClassicGroups", "describedGroups", List.of("ag"));
        checks.works("a group with a member", () -> {
            try (KafkaConsumer<String, String> consumer = traffic.consumer("group.id", "live")) {
                consumer.subscribe(List.of("a1"));
                long until = System.currentTimeMillis() + 15_000;
                while (consumer.assignment().isEmpty() && System.currentTimeMillis() < until) {
                    consumer.poll(java.time.Duration.ofMillis(100));
                }
                Checks.equal(admin.describeConsumerGroups(List.of("live")).all().get().get("live").members().iterator().next().assignment().topicPartitions().size(), 4);
                checks.refuses("deleteConsumerGroups with a member", GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of("live")).all().get());
                checks.works("removeMembersFromConsumerGroup", () -> admin.removeMembersFromConsumerGroup("live",
                    new org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions()).all().get());
            }
        });
        checks.works("deleteConsumerGroupOffsets", () -> admin.deleteConsumerGroupOffsets("ag", Set.of(first)).all().get());
        checks.works("deleteConsumerGroups", () -> {
            admin.alterConsumerGroupOffsets("ag2", Map.of(first, new OffsetAndMetadata(5))).all().get();
            admin.deleteConsumerGroups(List.of("ag2")).all().get();
        });
        checks.refuses("deleteConsumerGroups, unknown", GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of("nowhere")).all().get());
    }

    private void transactions() {
        checks.works("transactions", () -> {
            try (KafkaProducer<String, String> producer = traffic.producer("transactional.id", "at")) {
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("a1", 1, "k", "v")).get();
                Checks.that(admin.listTransactions().all().get().stream().anyMatch(one -> one.transactionalId().equals("at")), "at is not listed");
                Checks.equal(admin.describeTransactions(List.of("at")).all().get().get("at").topicPartitions(), Set.of(new TopicPartition("a1", 1)));
                Checks.equal(admin.describeProducers(List.of(new TopicPartition("a1", 1))).all().get().get(new TopicPartition("a1", 1)).activeProducers().size(), 1);
                admin.fenceProducers(List.of("at")).all().get();
            }
        });
        checks.refuses("describeTransactions, unknown", TransactionalIdNotFoundException.class, () -> admin.describeTransactions(List.of("nobody")).all().get());
    }

    private void others() {
        AclBinding binding = new AclBinding(new ResourcePattern(ResourceType.TOPIC, "a1", PatternType.LITERAL),
            new AccessControlEntry("User:u", "*", AclOperation.READ, AclPermissionType.ALLOW));
        checks.clear("electLeaders", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(first)).all());
        checks.clear("alterPartitionReassignments", () -> admin.alterPartitionReassignments(Map.of(first, Optional.of(new NewPartitionReassignment(List.of(node()))))).all());
        checks.clear("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments());
        checks.clear("alterReplicaLogDirs", () -> admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica("a1", 0, node()), "/nowhere")).all());
        checks.clear("createAcls", () -> admin.createAcls(List.of(binding)).all());
        checks.clear("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values());
        checks.clear("deleteAcls", () -> admin.deleteAcls(List.of(AclBindingFilter.ANY)).all());
        checks.clear("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities());
        checks.clear("alterClientQuotas", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of("user", "u")),
            List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e9))))).all());
        checks.clear("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all());
        checks.clear("alterUserScramCredentials", () -> admin.alterUserScramCredentials(List.of(
            new UserScramCredentialUpsertion("u", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).all());
        checks.clear("createDelegationToken", () -> admin.createDelegationToken().delegationToken());
        checks.clear("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens());
        checks.clear("renewDelegationToken", () -> admin.renewDelegationToken(new byte[8]).expiryTimestamp());
        checks.clear("expireDelegationToken", () -> admin.expireDelegationToken(new byte[8]).expiryTimestamp());
        checks.clear("describeMetadataQuorum", () -> admin.describeMetadataQuorum().quorumInfo());
        checks.clear("updateFeatures", () -> admin.updateFeatures(Map.of("metadata.version", new FeatureUpdate((short) 20, FeatureUpdate.UpgradeType.UPGRADE)),
            new org.apache.kafka.clients.admin.UpdateFeaturesOptions().validateOnly(true)).all());
        checks.clear("unregisterBroker", () -> admin.unregisterBroker(77).all());
        checks.clear("listClientMetricsResources", () -> admin.listClientMetricsResources().all());
        asked("listConfigResources", "all");
        asked("describeShareGroups", "all", List.of("sg"));
        asked("deleteShareGroups", "all", List.of("sg"));
        asked("deleteShareGroupOffsets", "all", "sg", Set.of("a1"));
        asked("alterShareGroupOffsets", "all", "sg", new HashMap<>(Map.of(first, 1L)));
        asked("describeStreamsGroups", "all", List.of("sg"));
        asked("deleteStreamsGroups", "all", List.of("sg"));
        checks.works("metrics", () -> Checks.that(!admin.metrics().isEmpty(), "no metrics"));
    }
}
