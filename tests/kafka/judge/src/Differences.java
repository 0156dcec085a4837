import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.PrintStream;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Pattern;

/** What differs, and what of that may. */
final class Differences {
    /** Fields that say which element of a list it is; the first of them that an element has. */
    private static final List<String> IDENTITIES = List.of(
        "name", "topicName", "topic", "topicId", "resourceName", "groupId", "transactionalId", "partitionIndex", "partition", "index",
        "partitionId", "memberId", "nodeId", "brokerId", "apiKey", "key", "producerId", "logDir", "path", "groupName", "user", "entityType");

    /** A row of the file of allowed differences. */
    private static final class Allowed {
        final String api;
        final int first;
        final int last;
        final Pattern name;
        final Pattern path;
        final Pattern kafka;
        final Pattern tidelog;
        final boolean pending;
        final String text;
        final JsonNode row;
        int used;

        Allowed(JsonNode difference, JsonNode row) {
            api = difference.get("api").asText();
            pending = difference.path("pending").asBoolean();
            String versions = row.path("versions").asText("0-99");
            first = Integer.parseInt(versions.replaceAll("-.*", ""));
            last = Integer.parseInt(versions.replaceAll(".*-", ""));
            name = glob(row.path("case").asText("*"));
            path = glob(row.path("path").asText("*"));
            kafka = glob(row.path("kafka").asText("*"));
            tidelog = glob(row.path("tidelog").asText("*"));
            text = api + " " + row;
            this.row = row;
        }

        boolean allows(Row row) {
            return (api.equals("*") || api.equals(row.api)) && first <= row.version && row.version <= last && name.matcher(row.name).matches()
                && path.matcher(row.path).matches() && kafka.matcher(row.kafka).matches() && tidelog.matcher(row.tidelog).matches();
        }

        private static Pattern glob(String text) {
            StringBuilder pattern = new StringBuilder();
            for (String piece : text.split("\\*", -1)) {
                pattern.append(Pattern.quote(piece)).append("[\\s\\S]*");
            }
            pattern.setLength(pattern.length() - "[\\s\\S]*".length());
            return Pattern.compile(pattern.toString());
        }
    }

    /** A difference of one field. */
    private record Row(String api, int version, String name, String path, String kafka, String tidelog) {}

    private final Path file;
    private final JsonNode whole;
    private final List<Allowed> allowed = new ArrayList<>();
    private final List<Row> rows = new ArrayList<>();

    Differences(Path file) throws Exception {
        this.file = file;
        whole = Requests.JSON.readTree(file.toFile());
        for (JsonNode difference : whole) {
            for (JsonNode row : difference.get("rows")) {
                allowed.add(new Allowed(difference, row));
            }
        }
    }

    void add(String api, int version, String name, String path, String kafka, String tidelog) {
        rows.add(new Row(api, version, name, path, kafka, tidelog));
    }

    /** Compares two answers and keeps what differs; where it is not the last try, only if all of that is allowed. */
    boolean compare(String api, int version, String name, JsonNode kafka, JsonNode tidelog, boolean last) {
        int before = rows.size();
        walk(api, version, name, "", kafka, tidelog);
        List<Row> found = rows.subList(before, rows.size());
        boolean right = found.stream().allMatch(row -> allowed.stream().anyMatch(one -> one.allows(row)));
        if (!right && !last) {
            found.clear();
        }
        return right;
    }

    private void walk(String api, int version, String name, String path, JsonNode kafka, JsonNode tidelog) {
        if (kafka != null && tidelog != null && kafka.isObject() && tidelog.isObject()) {
            TreeSet<String> fields = new TreeSet<>();
            kafka.fieldNames().forEachRemaining(fields::add);
            tidelog.fieldNames().forEachRemaining(fields::add);
            for (String field : fields) {
                walk(api, version, name, path.isEmpty() ? field : path + "." + field, kafka.get(field), tidelog.get(field));
            }
        } else if (kafka != null && tidelog != null && kafka.isArray() && tidelog.isArray()) {
            Map<String, JsonNode> one = elements(kafka);
            Map<String, JsonNode> other = elements(tidelog);
            TreeSet<String> keys = new TreeSet<>(one.keySet());
            keys.addAll(other.keySet());
            for (String key : keys) {
                walk(api, version, name, path + "[" + key + "]", one.get(key), other.get(key));
            }
        } else if (kafka == null ? tidelog != null : !kafka.equals(tidelog)) {
            String first = text(kafka);
            String second = text(tidelog);
            if (!first.equals(second)) {
                add(api, version, name, path, first, second);
            }
        }
    }

    private static String text(JsonNode node) {
        return node == null ? "absent" : node.isTextual() ? node.asText() : node.toString();
    }

    /** The elements of a list by what says which it is; the order of a list says nothing where its elements say it. */
    private static Map<String, JsonNode> elements(JsonNode list) {
        Map<String, JsonNode> elements = new LinkedHashMap<>();
        int at = 0;
        for (JsonNode item : list) {
            String key = null;
            for (String identity : IDENTITIES) {
                JsonNode found = item.path(identity);
                if (key == null && !found.isMissingNode() && !found.isNull() && !found.asText().isEmpty()) {
                    key = found.asText();
                }
            }
            key = key == null ? String.valueOf(at) : key;
            String unique = key;
            for (int again = 2; elements.containsKey(unique); again++) {
                unique = key + "#" + again;
            }
            elements.put(unique, item);
            at++;
        }
        return elements;
    }

    /** All differences as lines of JSON. */
    void write(PrintStream out) {
        for (Row row : rows) {
            ObjectNode line = Requests.JSON.createObjectNode();
            line.put("api", row.api).put("version", row.version).put("case", row.name).put("path", row.path)
                .put("kafka", row.kafka).put("tidelog", row.tidelog);
            Allowed found = allowed.stream().filter(one -> one.allows(row)).findFirst().orElse(null);
            line.put("allowed", found != null);
            out.println(line);
        }
    }

    /** Prints what is not allowed, and what is allowed in vain; whether all is as the file says. */
    boolean verdict(PrintStream out, boolean whole) {
        Map<String, TreeSet<Integer>> wrong = new TreeMap<>();
        int excused = 0;
        for (Row row : rows) {
            List<Allowed> found = allowed.stream().filter(one -> one.allows(row)).toList();
            found.forEach(one -> one.used++);
            if (found.isEmpty()) {
                String key = row.api + " | " + row.name + " | " + row.path + " | kafka: " + cut(row.kafka) + " | tidelog: " + cut(row.tidelog);
                wrong.computeIfAbsent(key, none -> new TreeSet<>()).add(row.version);
            } else {
                excused++;
            }
        }
        wrong.forEach((key, versions) -> out.println("differs: " + key + " | versions " + versions));
        for (Allowed one : allowed) {
            if (one.used == 0 && whole) {
                out.println("differs no more, to be taken out with JUDGE_PRUNE=1: " + one.text);
            }
        }
        out.printf("%d differences of a field in an answer, %d of them allowed by %d rows%n", rows.size(), excused, allowed.size());
        return wrong.isEmpty();
    }

    /** Writes the file anew without what is allowed in vain, one row a line. */
    void prune() throws Exception {
        StringBuilder text = new StringBuilder("[");
        for (JsonNode difference : whole) {
            StringBuilder rows = new StringBuilder();
            for (JsonNode row : difference.get("rows")) {
                if (allowed.stream().anyMatch(one -> one.row == row && one.used > 0)) {
                    rows.append(rows.isEmpty() ? "\n  " : ",\n  ").append(row);
                }
            }
            if (!rows.isEmpty()) {
                ObjectNode head = difference.deepCopy();
                head.remove("rows");
                String start = head.toString();
                text.append(text.length() == 1 ? "\n " : ",\n ").append(start, 0, start.length() - 1).append(",\"rows\":[").append(rows).append("\n ]}");
            }
        }
        java.nio.file.Files.writeString(file, text.append("\n]\n"));
    }

    private static String cut(String text) {
        return text.length() > 300 ? text.substring(0, 300) + "..." : text;
    }
}
