import com.fasterxml.jackson.databind.JsonNode;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;

/**
 * Sends the same requests to Apache Kafka and to Tidelog, each of them fresh, and compares the answers field by field.
 *
 * Arguments: address of Kafka, address of Tidelog, file of the allowed differences, file to write all differences to, and
 * names of the parts to run (all where there are none). Ends with 1 where a difference is not allowed.
 */
public final class Judge {
    /** An answer of each of the two. */
    record Answers(JsonNode kafka, JsonNode tidelog) {}

    /** Requests that are sent and not answered yet. */
    record Pending(String label, String name, ApiKeys key, short version, int kafka, int tidelog) {}

    /** A part of the requests. */
    interface Part {
        void run(Judge judge) throws Exception;
    }

    /** Requests after which Kafka's broker takes a moment to see what its controller has done. */
    private static final Set<ApiKeys> SETTLING = Set.of(
        ApiKeys.CREATE_TOPICS, ApiKeys.DELETE_TOPICS, ApiKeys.CREATE_PARTITIONS, ApiKeys.ALTER_CONFIGS,
        ApiKeys.INCREMENTAL_ALTER_CONFIGS, ApiKeys.ALTER_CLIENT_QUOTAS, ApiKeys.ALTER_USER_SCRAM_CREDENTIALS,
        ApiKeys.CREATE_ACLS, ApiKeys.DELETE_ACLS);

    /** Requests that change nothing. */
    private static final Set<ApiKeys> LOOKING = Set.of(
        ApiKeys.METADATA, ApiKeys.DESCRIBE_CONFIGS, ApiKeys.DESCRIBE_TOPIC_PARTITIONS, ApiKeys.DESCRIBE_LOG_DIRS, ApiKeys.DESCRIBE_CLUSTER,
        ApiKeys.LIST_GROUPS, ApiKeys.DESCRIBE_GROUPS, ApiKeys.OFFSET_FETCH, ApiKeys.LIST_OFFSETS, ApiKeys.FIND_COORDINATOR,
        ApiKeys.DESCRIBE_TRANSACTIONS, ApiKeys.LIST_TRANSACTIONS, ApiKeys.DESCRIBE_PRODUCERS, ApiKeys.CONSUMER_GROUP_DESCRIBE,
        ApiKeys.OFFSET_FOR_LEADER_EPOCH, ApiKeys.DESCRIBE_USER_SCRAM_CREDENTIALS, ApiKeys.DESCRIBE_CLIENT_QUOTAS);

    final Server kafka;
    final Server tidelog;
    /** What timestamps of records are counted from: far enough from now to be told from the clock. */
    final long base = System.currentTimeMillis() - 3_600_000;
    private final Differences differences;
    /** The number of the one node of each. */
    private String node;
    private final Normal ofKafka;
    private final Normal ofTidelog;
    private final ExecutorService second = Executors.newSingleThreadExecutor(work -> {
        Thread thread = new Thread(work, "tidelog");
        thread.setDaemon(true);
        return thread;
    });
    private final Map<ApiKeys, short[]> both = new TreeMap<>();
    private final Set<String> compared = new LinkedHashSet<>();
    private final Map<String, Set<String>> cases = new TreeMap<>();
    private final Map<String, Long> waited = new java.util.concurrent.ConcurrentHashMap<>();
    private java.util.regex.Pattern only;
    private int answers;

    private Judge(String kafka, String tidelog, Differences differences) {
        this.kafka = new Server("kafka", kafka);
        this.tidelog = new Server("tidelog", tidelog);
        this.differences = differences;
        ofKafka = new Normal(this.kafka, base);
        ofTidelog = new Normal(this.tidelog, base);
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("node")) {
            // The number of a server's one node, for Kafka to have the same.
            System.out.println(node(new Server("tidelog", arguments[1])));
            Runtime.getRuntime().halt(0);
        }
        long began = System.nanoTime();
        Differences differences = new Differences(Path.of(arguments[2]));
        Judge judge = new Judge(arguments[0], arguments[1], differences);
        Set<String> wanted = new LinkedHashSet<>(List.of(arguments).subList(4, arguments.length));
        Map<String, Part> parts = new TreeMap<>();
        parts.put("1-versions", Versions::run);
        parts.put("2-topics", Topics::run);
        parts.put("3-configs", Configs::run);
        parts.put("4-records", Records::run);
        parts.put("5-fetches", Fetches::run);
        parts.put("6-groups", Groups::run);
        parts.put("7-offsets", Offsets::run);
        parts.put("8-consumers", Consumers::run);
        parts.put("9-transactions", Transactions::run);
        judge.node = node(judge.kafka);
        judge.ofKafka.number = judge.node;
        judge.ofTidelog.number = judge.node;
        Versions.learn(judge);
        Setup.run(judge);
        for (Map.Entry<String, Part> part : parts.entrySet()) {
            if (wanted.isEmpty() || wanted.contains(part.getKey().substring(2))) {
                long start = System.nanoTime();
                try {
                    part.getValue().run(judge);
                } catch (Exception broken) {
                    broken.printStackTrace();
                    differences.add("*", 0, part.getKey(), "", "", "the part was not run to its end: " + broken);
                }
                System.out.printf("%s: %.1f s%n", part.getKey().substring(2), (System.nanoTime() - start) / 1e9);
            }
        }
        try (PrintStream out = new PrintStream(arguments[3])) {
            differences.write(out);
        }
        if (System.getenv("JUDGE_TIMES") != null) {
            judge.waited.entrySet().stream().sorted(Map.Entry.<String, Long>comparingByValue().reversed()).limit(12)
                .forEach(one -> System.out.printf("waited %.1f s for %s%n", one.getValue() / 1e9, one.getKey()));
        }
        int cases = judge.cases.values().stream().mapToInt(Set::size).sum();
        System.out.printf("%d APIs, %d APIs and versions, %d cases, %d answers compared in %.0f s%n",
            judge.cases.size(), judge.compared.size(), cases, judge.answers, (System.nanoTime() - began) / 1e9);
        boolean right = differences.verdict(System.out, wanted.isEmpty());
        if (System.getenv("JUDGE_PRUNE") != null && wanted.isEmpty()) {
            differences.prune();
        }
        System.out.println(right ? "ok" : "differences that are not allowed: see " + arguments[3]);
        System.out.flush();
        Runtime.getRuntime().halt(right ? 0 : 1);
    }

    private static String node(Server server) throws Exception {
        return until(server, ApiKeys.METADATA, 1, "{topics:[]}", answer -> answer.path("brokers").size() == 1).at("/brokers/0/nodeId").asText();
    }

    /** The versions that both servers answer. */
    List<Short> versions(ApiKeys key) {
        List<Short> versions = new ArrayList<>();
        short[] range = both.get(key);
        if (range != null) {
            for (short version = range[0]; version <= range[1]; version++) {
                versions.add(version);
            }
        }
        return versions;
    }

    boolean has(ApiKeys key) {
        return both.containsKey(key);
    }

    void range(ApiKeys key, int first, int last) {
        both.put(key, new short[] {(short) first, (short) last});
    }

    /** Notes a difference that no single answer shows. */
    void differ(ApiKeys key, int version, String name, String path, Object kafka, Object tidelog) {
        differences.add(key.name, version, name, path, String.valueOf(kafka), String.valueOf(tidelog));
    }

    /**
     * Sends a request to both and compares the answers. In the text "@" stands for the version, so that each version has
     * names of its own, and "%" for the number of the node. Null where the request cannot be said in this version.
     */
    Answers ask(String name, ApiKeys key, int version, String text) throws Exception {
        return ask("main", name, key, version, text);
    }

    Answers ask(String label, String name, ApiKeys key, int version, String text) throws Exception {
        // What only looks may be asked again: what a server has just done it may show a little later.
        boolean looks = LOOKING.contains(key) || key == ApiKeys.FETCH && !text.contains("sessionId");
        for (int tries = looks ? 8 : 0; ; tries--) {
            Pending pending = begin(label, name, key, version, text);
            if (pending == null) {
                return null;
            }
            Answers answers = receive(pending, Server.PATIENCE_MS);
            if (compare(pending, answers, tries == 0) || tries == 0) {
                return answers;
            }
            Thread.sleep(100);
        }
    }

    /** The same, of whose answers only what has such a name is compared: what else there is, other requests have left. */
    Answers askOnly(String names, String name, ApiKeys key, int version, String text) throws Exception {
        only = java.util.regex.Pattern.compile(names);
        try {
            return ask(name, key, version, text);
        } finally {
            only = null;
        }
    }

    /** Asks in each version that both answer; the texts are pairs of a name and a request. */
    void each(ApiKeys key, String... texts) throws Exception {
        for (short version : versions(key)) {
            for (int at = 0; at < texts.length; at += 2) {
                ask(texts[at], key, version, texts[at + 1]);
            }
        }
    }

    /** Sends a request to both, whose answer may take its time. */
    Pending begin(String label, String name, ApiKeys key, int version, String text) throws Exception {
        String said = text.replace("@", "-v" + version).replace("%", node);
        try {
            int first = kafka.send(label, key, (short) version, Requests.of(key, said, kafka.variables));
            int second = tidelog.send(label, key, (short) version, Requests.of(key, said, tidelog.variables));
            return new Pending(label, name, key, (short) version, first, second);
        } catch (UnsupportedVersionException unsaid) {
            return null;
        }
    }

    Answers end(Pending pending) throws Exception {
        Answers answers = receive(pending, Server.PATIENCE_MS);
        compare(pending, answers, true);
        return answers;
    }

    /** Sends a request to both without comparing: what a case needs first. */
    Answers prepare(ApiKeys key, int version, String text) throws Exception {
        return receive(begin("main", "", key, version, text), Server.PATIENCE_MS);
    }

    /** The same to one of the two, until its answer says what is wanted. */
    static JsonNode until(Server server, ApiKeys key, int version, String text, java.util.function.Predicate<JsonNode> wanted)
        throws Exception {
        for (int tries = 0; ; tries++) {
            int id = server.send("main", key, (short) version, Requests.of(key, text, server.variables));
            JsonNode answer = server.answer("main", id, key, (short) version, Server.PATIENCE_MS);
            if (wanted.test(answer)) {
                return answer;
            } else if (tries > 200) {
                throw new IllegalStateException(server.name + " does not come to it: " + key + " " + text + ": " + answer);
            }
            Thread.sleep(50);
        }
    }

    /** The same to each of them. */
    void both(ApiKeys key, int version, String text, java.util.function.Predicate<JsonNode> wanted) throws Exception {
        until(kafka, key, version, text, wanted);
        until(tidelog, key, version, text, wanted);
    }

    /** Sends bytes that are no request of Kafka's classes. */
    void raw(String name, ApiKeys key, int version, int headerVersion, byte[] body, int patienceMs) throws Exception {
        int first = kafka.send("raw", key.id, (short) version, (short) headerVersion, ByteBuffer.wrap(body));
        int second = tidelog.send("raw", key.id, (short) version, (short) headerVersion, ByteBuffer.wrap(body));
        Pending pending = new Pending("raw", name, key, (short) version, first, second);
        compare(pending, receive(pending, patienceMs), true);
        kafka.disconnect("raw");
        tidelog.disconnect("raw");
    }

    private Answers receive(Pending pending, int patienceMs) throws Exception {
        long began = System.nanoTime();
        Future<JsonNode> other = second.submit(() -> {
            JsonNode answer = tidelog.answer(pending.label, pending.tidelog, pending.key, pending.version, patienceMs);
            waited.merge("tidelog " + pending.key, System.nanoTime() - began, Long::sum);
            return answer;
        });
        JsonNode one = kafka.answer(pending.label, pending.kafka, pending.key, pending.version, patienceMs);
        waited.merge("kafka " + pending.key, System.nanoTime() - began, Long::sum);
        Answers answers = new Answers(one, other.get());
        long millis = (System.nanoTime() - began) / 1_000_000;
        if (millis > 400 && System.getenv("JUDGE_TIMES") != null) {
            System.out.printf("%d ms: %s %d %s%n", millis, pending.key, pending.version, pending.name);
        }
        if (SETTLING.contains(pending.key)) {
            Thread.sleep(60);
        }
        return answers;
    }

    private boolean compare(Pending pending, Answers got, boolean last) {
        compared.add(pending.key.name + " " + pending.version);
        cases.computeIfAbsent(pending.key.name, key -> new TreeSet<>()).add(pending.name);
        JsonNode one = ofKafka.of(got.kafka, only);
        JsonNode other = ofTidelog.of(got.tidelog, only);
        boolean right = differences.compare(pending.key.name, pending.version, pending.name, one, other, last);
        answers += right || last ? 1 : 0;
        return right;
    }

    /** Keeps a field of both answers under a name, for later requests and in place of its value in answers. */
    void save(String name, Answers answers, String pointer) {
        save(kafka, name, answers.kafka, pointer);
        save(tidelog, name, answers.tidelog, pointer);
    }

    private static void save(Server server, String name, JsonNode answer, String pointer) {
        JsonNode found = answer.at(pointer);
        String field = pointer.substring(pointer.lastIndexOf('/') + 1);
        if (found.isIntegralNumber() && found.asLong() == 0 && field.equals("sessionId")) {
            server.variables.put(name, 0L);
        } else if (found.isIntegralNumber()) {
            server.variables.put(name, found.asLong());
            server.aliases.put(field + "=" + found.asLong(), "<" + name.replaceAll("-v\\d+$", "") + ">");
        } else {
            String text = found.isMissingNode() ? "none" : found.asText();
            server.variables.put(name, text);
            if (!text.isEmpty() && !text.equals("none")) {
                server.aliases.put(text, "<" + name.replaceAll("-v\\d+$", "") + ">");
            }
        }
    }

    /** A variable that is the same for both. */
    void variable(String name, Object value) {
        kafka.variables.put(name, value);
        tidelog.variables.put(name, value);
    }

    /** Creates a topic on both, waits until it is there, and keeps its id as "id:NAME". False where one of them refuses. */
    boolean topic(String name, int partitions, String configs) throws Exception {
        Answers answers = prepare(ApiKeys.CREATE_TOPICS, 7, "{timeoutMs:10000, topics:[{name:'" + name + "', numPartitions:" + partitions
            + ", replicationFactor:1, configs:[" + configs + "]}]}");
        int one = answers.kafka.at("/topics/0/errorCode").asInt(-1);
        int other = answers.tidelog.at("/topics/0/errorCode").asInt(-1);
        if (one != 0 || other != 0) {
            differ(ApiKeys.CREATE_TOPICS, 7, "for later: " + configs, "errorCode", one, other);
            return false;
        }
        for (Server server : List.of(kafka, tidelog)) {
            JsonNode answer = until(server, ApiKeys.METADATA, 12, "{topics:[{name:'" + name + "'}], allowAutoTopicCreation:false}", found ->
                found.at("/topics/0/errorCode").asInt(-1) == 0 && found.at("/topics/0/partitions").size() == partitions
                    && found.at("/topics/0/partitions/0/leaderId").asInt(-1) >= 0);
            save(server, "id:" + name, answer, "/topics/0/topicId");
        }
        return true;
    }
}
