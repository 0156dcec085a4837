import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Producers, consumers of both group protocols, transactions. */
final class Traffic {
    private final Checks checks;
    private final Admin admin;
    private final String server;

    Traffic(Checks checks, Admin admin, String server) {
        this.checks = checks;
        this.admin = admin;
        this.server = server;
    }

    KafkaProducer<String, String> producer(String... more) {
        Properties properties = new Properties();
        properties.putAll(Map.of("bootstrap.servers", server, "linger.ms", "5", "max.block.ms", "15000", "delivery.timeout.ms", "20000",
            "request.timeout.ms", "10000"));
        for (int at = 0; at < more.length; at += 2) {
            properties.put(more[at], more[at + 1]);
        }
        return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
    }

    KafkaConsumer<String, String> consumer(String... more) {
        Properties properties = new Properties();
        properties.putAll(Map.of("bootstrap.servers", server, "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "default.api.timeout.ms", "15000"));
        for (int at = 0; at < more.length; at += 2) {
            properties.put(more[at], more[at + 1]);
        }
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    private void topic(String name, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get();
    }

    private void fill(String topic, int count, String... more) throws Exception {
        try (KafkaProducer<String, String> producer = producer(more)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int at = 0; at < count; at++) {
                sent.add(producer.send(new ProducerRecord<>(topic, "key " + at, "value " + at)));
            }
            for (Future<RecordMetadata> one : sent) {
                one.get(20, TimeUnit.SECONDS);
            }
        }
    }

    /** Values in the order of their numbers, until there are as many or the time is over. */
    private static List<String> read(KafkaConsumer<String, String> consumer, int count) {
        List<String> values = new ArrayList<>();
        long until = System.currentTimeMillis() + 30_000;
        while (values.size() < count && System.currentTimeMillis() < until) {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                values.add(record.value());
            }
        }
        return values;
    }

    void run() {
        checks.works("every codec", () -> {
            topic("codecs", 1);
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                fill("codecs", 20, "compression.type", codec);
            }
            try (KafkaConsumer<String, String> consumer = consumer()) {
                consumer.assign(List.of(new TopicPartition("codecs", 0)));
                Checks.equal(read(consumer, 100).size(), 100);
                Checks.equal(consumer.endOffsets(List.of(new TopicPartition("codecs", 0))).values().iterator().next(), 100L);
            }
        });
        checks.works("acks 0 and 1, not idempotent", () -> {
            topic("acks", 1);
            fill("acks", 10, "acks", "0", "enable.idempotence", "false");
            fill("acks", 10, "acks", "1", "enable.idempotence", "false");
            try (KafkaConsumer<String, String> consumer = consumer()) {
                consumer.assign(List.of(new TopicPartition("acks", 0)));
                Checks.equal(read(consumer, 20).size(), 20);
            }
        });
        checks.refuses("a record too large", RecordTooLargeException.class, () -> {
            try (KafkaProducer<String, String> producer = producer("max.request.size", "20000000", "buffer.memory", "64000000")) {
                producer.send(new ProducerRecord<>("codecs", "x".repeat(12_000_000))).get(20, TimeUnit.SECONDS);
            }
        });
        checks.refuses("a topic of a bad name", InvalidTopicException.class, () -> {
            try (KafkaProducer<String, String> producer = producer()) {
                producer.send(new ProducerRecord<>("a b", "x")).get(20, TimeUnit.SECONDS);
            }
        });
        checks.works("offsets by time, partitions, topics, seeking", this::seeking);
        for (String protocol : List.of("classic", "consumer")) {
            checks.works("a group of two, " + protocol, () -> group(protocol));
            checks.works("subscription by an expression, " + protocol, () -> expression(protocol));
            checks.works("exactly once, " + protocol, () -> exactly(protocol));
        }
        checks.works("a static member, classic", this::named);
        checks.works("aborted and committed records", this::isolation);
        checks.works("a producer that is fenced", this::fenced);
    }

    private void seeking() throws Exception {
        topic("times", 2);
        try (KafkaProducer<String, String> producer = producer()) {
            for (int at = 0; at < 10; at++) {
                producer.send(new ProducerRecord<>("times", 0, 1_700_000_000_000L + at, "k", "v" + at)).get(20, TimeUnit.SECONDS);
            }
        }
        TopicPartition first = new TopicPartition("times", 0);
        try (KafkaConsumer<String, String> consumer = consumer("group.id", "times")) {
            Checks.equal(consumer.offsetsForTimes(Map.of(first, 1_700_000_000_005L)).get(first).offset(), 5L);
            Checks.equal(consumer.offsetsForTimes(Map.of(first, 1_800_000_000_000L)).get(first), null);
            Checks.equal(consumer.partitionsFor("times").size(), 2);
            Checks.that(consumer.listTopics().containsKey("times"), "times is not listed");
            consumer.assign(List.of(first));
            consumer.seek(first, 7);
            Checks.equal(read(consumer, 3), List.of("v7", "v8", "v9"));
            consumer.seekToBeginning(List.of(first));
            Checks.equal(consumer.position(first), 0L);
            consumer.seekToEnd(List.of(first));
            Checks.equal(consumer.position(first), 10L);
            consumer.seek(first, 500);
            Checks.equal(read(consumer, 10).size(), 10);
            consumer.commitSync(Map.of(first, new OffsetAndMetadata(4, "note")));
            Checks.equal(consumer.committed(Set.of(first)).get(first).metadata(), "note");
            Checks.equal(consumer.currentLag(first).orElse(-1), 0L);
        }
    }

    private void group(String protocol) throws Exception {
        String topic = "group-" + protocol;
        topic(topic, 4);
        fill(topic, 200);
        Set<TopicPartition> firstHas = new TreeSet<>(java.util.Comparator.comparing(TopicPartition::toString));
        ConsumerRebalanceListener listener = new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> gone) {
                firstHas.removeAll(gone);
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> come) {
                firstHas.addAll(come);
            }
        };
        try (KafkaConsumer<String, String> first = consumer("group.id", topic, "group.protocol", protocol);
            KafkaConsumer<String, String> second = consumer("group.id", topic, "group.protocol", protocol)) {
            first.subscribe(List.of(topic), listener);
            Checks.equal(new TreeSet<>(read(first, 200)).size(), 200);
            Checks.equal(firstHas.size(), 4);
            first.commitSync();
            second.subscribe(List.of(topic));
            long until = System.currentTimeMillis() + 30_000;
            int again = 0;
            while ((firstHas.size() != 2 || second.assignment().size() != 2) && System.currentTimeMillis() < until) {
                again += first.poll(Duration.ofMillis(100)).count();
                again += second.poll(Duration.ofMillis(100)).count();
            }
            Checks.equal(firstHas.size(), 2);
            Checks.equal(second.assignment().size(), 2);
            Checks.equal(again, 0);
            fill(topic, 100);
            List<String> values = new ArrayList<>();
            while (values.size() < 100 && System.currentTimeMillis() < until + 10_000) {
                for (KafkaConsumer<String, String> one : List.of(first, second)) {
                    ConsumerRecords<String, String> records = one.poll(Duration.ofMillis(100));
                    records.forEach(record -> values.add(record.value()));
                }
            }
            Checks.equal(values.size(), 100);
            second.commitSync();
        }
        long until = System.currentTimeMillis() + 15_000;
        String state = "";
        while (!state.equals("EMPTY") && System.currentTimeMillis() < until) {
            state = Administration.state(admin.describeConsumerGroups(List.of(topic)).all().get().get(topic));
        }
        Checks.equal(state, "EMPTY");
    }

    private void expression(String protocol) throws Exception {
        String prefix = "expr-" + protocol;
        topic(prefix + "-1", 1);
        topic(prefix + "-2", 1);
        fill(prefix + "-1", 5);
        fill(prefix + "-2", 5);
        try (KafkaConsumer<String, String> consumer = consumer("group.id", prefix, "group.protocol", protocol, "metadata.max.age.ms", "2000")) {
            consumer.subscribe(java.util.regex.Pattern.compile(prefix + "-.*"));
            Checks.equal(read(consumer, 10).size(), 10);
        }
    }

    private void exactly(String protocol) throws Exception {
        String from = "from-" + protocol;
        String to = "to-" + protocol;
        topic(from, 2);
        topic(to, 2);
        fill(from, 100);
        try (KafkaConsumer<String, String> consumer = consumer("group.id", from, "group.protocol", protocol, "isolation.level", "read_committed");
            KafkaProducer<String, String> producer = producer("transactional.id", from)) {
            producer.initTransactions();
            consumer.subscribe(List.of(from));
            int copied = 0;
            long until = System.currentTimeMillis() + 30_000;
            while (copied < 100 && System.currentTimeMillis() < until) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> positions = new java.util.HashMap<>();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(to, record.key(), record.value()));
                    positions.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                ConsumerGroupMetadata metadata = consumer.groupMetadata();
                producer.sendOffsetsToTransaction(positions, metadata);
                producer.commitTransaction();
                copied += records.count();
            }
            Checks.equal(copied, 100);
        }
        try (KafkaConsumer<String, String> reader = consumer("isolation.level", "read_committed")) {
            reader.assign(List.of(new TopicPartition(to, 0), new TopicPartition(to, 1)));
            Checks.equal(new TreeSet<>(read(reader, 100)).size(), 100);
        }
        long lag = 0;
        for (Map.Entry<TopicPartition, OffsetAndMetadata> one : admin.listConsumerGroupOffsets(from).partitionsToOffsetAndMetadata().get().entrySet()) {
            lag += one.getValue().offset();
        }
        Checks.equal(lag, 100L);
    }

    private void named() throws Exception {
        topic("static", 2);
        fill("static", 10);
        String member = null;
        for (int round = 0; round < 2; round++) {
            try (KafkaConsumer<String, String> consumer = consumer("group.id", "static", "group.instance.id", "one", "session.timeout.ms", "10000")) {
                consumer.subscribe(List.of("static"));
                Checks.equal(read(consumer, round == 0 ? 10 : 0).size(), round == 0 ? 10 : 0);
                long until = System.currentTimeMillis() + 10_000;
                while (consumer.assignment().size() < 2 && System.currentTimeMillis() < until) {
                    consumer.poll(Duration.ofMillis(100));
                }
                Checks.equal(consumer.assignment().size(), 2);
                consumer.commitSync();
                Checks.that(!consumer.groupMetadata().memberId().equals(member), "the same member id");
                member = consumer.groupMetadata().memberId();
            }
        }
        Checks.equal(admin.describeConsumerGroups(List.of("static")).all().get().get("static").members().size(), 1);
    }

    private void isolation() throws Exception {
        topic("isolated", 1);
        TopicPartition one = new TopicPartition("isolated", 0);
        try (KafkaProducer<String, String> producer = producer("transactional.id", "isolated")) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("isolated", "aborted"));
            producer.flush();
            producer.abortTransaction();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("isolated", "committed"));
            producer.commitTransaction();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("isolated", "open")).get(20, TimeUnit.SECONDS);
            try (KafkaConsumer<String, String> committed = consumer("isolation.level", "read_committed"); KafkaConsumer<String, String> all = consumer()) {
                committed.assign(List.of(one));
                all.assign(List.of(one));
                Checks.equal(read(committed, 1), List.of("committed"));
                Checks.equal(read(all, 3), List.of("aborted", "committed", "open"));
                Checks.equal(committed.endOffsets(List.of(one)).get(one), 4L);
                Checks.equal(all.endOffsets(List.of(one)).get(one), 5L);
            }
            producer.abortTransaction();
        }
    }

    private void fenced() throws Exception {
        topic("fenced", 1);
        try (KafkaProducer<String, String> first = producer("transactional.id", "fenced"); KafkaProducer<String, String> second = producer("transactional.id", "fenced")) {
            first.initTransactions();
            first.beginTransaction();
            first.send(new ProducerRecord<>("fenced", "old")).get(20, TimeUnit.SECONDS);
            second.initTransactions();
            try {
                first.commitTransaction();
                throw new AssertionError("was not fenced");
            } catch (ProducerFencedException right) {
                second.beginTransaction();
                second.send(new ProducerRecord<>("fenced", "new"));
                second.commitTransaction();
            }
        }
        try (KafkaConsumer<String, String> reader = consumer("isolation.level", "read_committed")) {
            reader.assign(List.of(new TopicPartition("fenced", 0)));
            Checks.equal(read(reader, 1), List.of("new"));
        }
    }
}
