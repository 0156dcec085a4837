import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.internals.Exit;

/**
 * The commands that come with Kafka, as people type them, against a server: the classes behind kafka-topics.sh,
 * kafka-configs.sh, kafka-consumer-groups.sh, kafka-transactions.sh and others, in one process. Argument: its address.
 */
public final class Tools {
    /** A tool has ended the program. */
    private static final class Ended extends RuntimeException {
        Ended() {
            super(null, null, false, false);
        }
    }

    private static final PrintStream OUT = System.out;
    private static final List<String> failed = new ArrayList<>();
    private static int passed;
    private static Integer first;
    private static String node;
    private static String server;

    private Tools() {}

    /** Some tools take what is thrown here for an error of theirs, and end again: the first status is theirs. */
    private static void end(int status) {
        if (first == null) {
            first = status;
        }
        throw new Ended();
    }

    /** What a tool printed; fails where it ends with another status, or does not print what is wanted. */
    private static String run(int status, String tool, String line, String... wanted) throws Exception {
        return run(status, tool, line, "", wanted);
    }

    /** What does not work so far. */
    private static void notYet(int status, String tool, String line, String... wanted) throws Exception {
        int before = failed.size();
        run(status, tool, line, "", wanted);
        if (failed.size() == before) {
            OUT.println("works by now: " + line);
        } else {
            OUT.println("not yet: " + failed.remove(before));
        }
    }

    private static String run(int status, String tool, String line, String input, String[] wanted) throws Exception {
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream stream = new PrintStream(printed, true);
        PrintStream err = System.err;
        first = null;
        int ended = 0;
        String thrown = "";
        System.setOut(stream);
        System.setErr(stream);
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        try {
            String connect = tool.endsWith("ClusterTool") || tool.contains("ConsoleProducer") || tool.contains("perf") ? "" : "--bootstrap-server " + server + " ";
            String[] words = (connect + line.replace("SERVER", server)).trim().split(" +");
            for (int at = 0; at < words.length; at++) {
                words[at] = words[at].replace('~', ' ');
            }
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) words);
        } catch (InvocationTargetException error) {
            if (!(error.getCause() instanceof Ended)) {
                ended = -1;
                thrown = String.valueOf(error.getCause());
            }
        } finally {
            System.setOut(OUT);
            System.setErr(err);
        }
        if (first != null) {
            ended = first;
        }
        // What a tool says of the exception that ended it is ours.
        String text = printed.toString(StandardCharsets.UTF_8).replaceAll("(?m)^null\nTools\\$Ended\n", "") + thrown;
        List<String> wrong = new ArrayList<>();
        if (ended != status) {
            wrong.add("ended with " + ended);
        }
        for (String one : wanted) {
            if (!Pattern.compile(one).matcher(text).find()) {
                wrong.add("does not say " + one);
            }
        }
        String name = tool.replaceAll(".*\\.", "") + " " + line;
        if (wrong.isEmpty()) {
            passed++;
        } else {
            failed.add(name);
            OUT.println("FAILED " + name + ": " + wrong + "\n    " + text.strip().replace("\n", "\n    "));
        }
        return text;
    }

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        Exit.setExitProcedure((status, message) -> end(status));
        Exit.setHaltProcedure((status, message) -> end(status));
        topics();
        configs();
        records();
        groups();
        transactions();
        others();
        OUT.printf("%d commands right, %d not %s%n", passed, failed.size(), failed);
        OUT.println(failed.isEmpty() ? "ok" : "failed");
        OUT.flush();
        Runtime.getRuntime().halt(failed.isEmpty() ? 0 : 1);
    }

    private static void topics() throws Exception {
        String tool = "org.apache.kafka.tools.TopicCommand";
        run(0, tool, "--create --topic t1 --partitions 2 --replication-factor 1 --config retention.ms=3600000", "Created topic t1");
        run(0, tool, "--create --topic t1 --if-not-exists");
        run(1, tool, "--create --topic t1", "exists");
        run(0, tool, "--create --topic t2");
        node = node(run(0, tool, "--describe --topic t1"));
        run(0, tool, "--list", "(?m)^t1$", "(?m)^t2$");
        run(0, tool, "--describe --topic t1", "Topic: t1\\s+TopicId: \\S+\\s+PartitionCount: 2\\s+ReplicationFactor: 1\\s+Configs: .*retention.ms=3600000",
            "Partition: 1\\s+Leader: (\\d+)\\s+Replicas: \\1\\s+Isr: \\1");
        run(0, tool, "--describe", "Topic: t2");
        run(0, tool, "--describe --under-replicated-partitions", "^\\s*$");
        run(0, tool, "--describe --unavailable-partitions", "^\\s*$");
        run(0, tool, "--describe --topics-with-overrides", "Topic: t1");
        run(1, tool, "--describe --topic nowhere", "does not exist");
        run(0, tool, "--alter --topic t1 --partitions 3");
        run(0, tool, "--describe --topic t1", "PartitionCount: 3");
        run(1, tool, "--alter --topic t1 --partitions 1", "would not be an increase|(?i)partitions");
        run(0, tool, "--delete --topic t2");
        run(1, tool, "--delete --topic nowhere", "does not exist");
    }

    private static void configs() throws Exception {
        String tool = "org.apache.kafka.tools.ConfigCommand";
        run(0, tool, "--describe --entity-type topics --entity-name t1", "retention.ms=3600000");
        run(0, tool, "--describe --all --entity-type topics --entity-name t1", "cleanup.policy=delete", "segment.bytes=", "max.message.bytes=");
        run(0, tool, "--alter --entity-type topics --entity-name t1 --add-config retention.ms=7200000,segment.bytes=2097152", "Completed updating config");
        run(0, tool, "--describe --entity-type topics --entity-name t1", "retention.ms=7200000", "segment.bytes=2097152");
        run(0, tool, "--alter --entity-type topics --entity-name t1 --delete-config segment.bytes", "Completed updating config");
        run(1, tool, "--alter --entity-type topics --entity-name t1 --add-config retention.ms=soon", "(?i)invalid");
        run(0, tool, "--describe --all --entity-type brokers --entity-name " + node);
        run(0, tool, "--describe --entity-type brokers --entity-name " + node);
    }

    private static void records() throws Exception {
        run(0, "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server SERVER --topic t1 --reader-property parse.key=true --reader-property key.separator=:",
            "k1:one\nk2:two\nk3:three\n", new String[] {});
        run(0, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic t1 --from-beginning --max-messages 3 --timeout-ms 15000 --group console", "one", "two", "three");
        run(0, "org.apache.kafka.tools.GetOffsetShell", "--topic t1 --time -1", "t1:0:\\d+", "t1:2:\\d+");
        run(0, "org.apache.kafka.tools.GetOffsetShell", "--topic t1 --time -2", "t1:0:0");
        run(0, "org.apache.kafka.tools.GetOffsetShell", "--topic t1 --time -3", "t1:0:-?\\d+");
        Path file = Files.createTempFile("judge", ".json");
        Files.writeString(file, "{\"version\":1,\"partitions\":[{\"topic\":\"t1\",\"partition\":0,\"offset\":-1}]}");
        run(0, "org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file " + file, "low_watermark");
        Files.delete(file);
        run(0, "org.apache.kafka.tools.LogDirsCommand", "--describe --topic-list t1", "\"partition\":\"t1-0\"");
    }

    private static void groups() throws Exception {
        String tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        run(0, tool, "--list", "(?m)^console$");
        run(0, tool, "--list --state", "console\\s+\\S*\\s*(?i)empty");
        run(0, tool, "--describe --group console", "has no active members", "console\\s+t1\\s+0\\s+\\d+\\s+\\d+\\s+\\d+");
        run(0, tool, "--describe --group console --state", "(?i)empty");
        run(0, tool, "--describe --group console --members", "has no active members");
        run(0, tool, "--describe --all-groups", "console");
        run(0, tool, "--group console --reset-offsets --to-earliest --topic t1 --dry-run", "console\\s+t1\\s+1\\s+0");
        run(0, tool, "--group console --reset-offsets --to-earliest --topic t1 --execute", "console\\s+t1\\s+1\\s+0");
        run(0, tool, "--group console --reset-offsets --to-latest --all-topics --execute", "console\\s+t1");
        run(0, tool, "--group console --reset-offsets --to-datetime 2020-01-01T00:00:00.000 --topic t1:1 --execute", "console\\s+t1\\s+1\\s+0");
        run(0, tool, "--group console --reset-offsets --shift-by 1 --topic t1:1 --execute", "console\\s+t1\\s+1");
        run(0, tool, "--group console --delete-offsets --topic t1:1", "t1\\s+1\\s+Successful");
        run(0, tool, "--delete --group console", "was successful");
        run(0, "org.apache.kafka.tools.GroupsCommand", "--list");
    }

    private static KafkaProducer<String, String> producer(String id) {
        Properties properties = new Properties();
        properties.putAll(Map.of("bootstrap.servers", server, "transactional.id", id, "max.block.ms", "15000"));
        KafkaProducer<String, String> producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        return producer;
    }

    private static void transactions() throws Exception {
        String tool = "org.apache.kafka.tools.TransactionsCommand";
        run(0, "org.apache.kafka.tools.TopicCommand", "--create --topic tx --partitions 1");
        try (KafkaProducer<String, String> producer = producer("tx1")) {
            producer.beginTransaction();
            long offset = producer.send(new ProducerRecord<>("tx", "open")).get().offset();
            run(0, tool, "list", "tx1\\s+\\d+\\s+\\d+\\s+Ongoing");
            run(0, tool, "list --duration-filter 3600000", "TransactionalId");
            notYet(0, tool, "list --transactional-id-pattern tx.*", "tx1\\s+\\d+\\s+\\d+\\s+Ongoing");
            run(0, tool, "describe --transactional-id tx1", "tx1\\s+\\d+\\s+0\\s+Ongoing", "tx-0");
            run(0, tool, "describe-producers --topic tx --partition 0", "ProducerId", "(?m)^\\d+\\s+0\\s+-?\\d+\\s+0\\s+\\d+\\s+" + offset);
            run(0, tool, "find-hanging --broker-id " + node, "Topic\\s+Partition\\s+ProducerId");
            run(0, tool, "find-hanging --broker-id " + node + " --topic tx --partition 0", "Topic\\s+Partition\\s+ProducerId");
            run(0, tool, "abort --topic tx --partition 0 --start-offset " + offset);
            run(1, tool, "abort --topic tx --partition 0 --start-offset " + offset, "(?i)could not find");
            run(0, "org.apache.kafka.tools.GetOffsetShell", "--topic tx --time -1", "tx:0:2");
        }
        try (KafkaProducer<String, String> producer = producer("tx2")) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("tx", "open")).get();
            run(0, tool, "forceTerminateTransaction --transactionalId tx2");
            run(0, tool, "describe --transactional-id tx2", "tx2\\s+\\d+\\s+\\d+\\s+(CompleteAbort|Empty|PrepareAbort)");
        }
        run(1, tool, "describe --transactional-id nobody", "(?i)could not|not found");
    }

    private static String node(String described) {
        Matcher matcher = Pattern.compile("Leader: (\\d+)").matcher(described);
        return matcher.find() ? matcher.group(1) : "1";
    }

    private static void others() throws Exception {
        run(0, "org.apache.kafka.tools.BrokerApiVersionsCommand", "", "Produce\\(0\\): 0 to \\d+ \\[usable: \\d+\\]");
        run(0, "org.apache.kafka.tools.ClusterTool", "cluster-id --bootstrap-server SERVER", "Cluster ID: \\S+");
        run(0, "org.apache.kafka.tools.ClusterTool", "list-endpoints --bootstrap-server SERVER", "127.0.0.1");
        run(0, "org.apache.kafka.tools.FeatureCommand", "describe");
        run(0, "org.apache.kafka.tools.TopicCommand", "--delete --topic t1");
    }
}
