import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.nio.ByteBuffer;
import java.util.Base64;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.DefaultRecordBatch;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;

/** Takes out of an answer what must differ between two servers: ids, times, addresses, sizes, wording. */
final class Normal {
    private static final Pattern VERSION = Pattern.compile("-v\\d+(?![\\d.])");
    private static final JsonNodeFactory NODES = JsonNodeFactory.instance;
    private static final Pattern UUID = Pattern.compile("\\p{XDigit}{8}(-\\p{XDigit}{4}){3}-\\p{XDigit}{12}");
    private static final Pattern ID = Pattern.compile("[A-Za-z0-9_-]{22}|\\p{XDigit}{32}");
    private static final Pattern LONG = Pattern.compile("(.)\\1{49,}");
    private static final long NEAR_MS = 600_000;

    private final Server server;
    private final long base;
    /** Where it is not null: of a list of everything, only what has such a name is compared. */
    private Pattern only;
    /** The number of the one node of each server. */
    String number = "";

    Normal(Server server, long base) {
        this.server = server;
        this.base = base;
    }

    JsonNode of(JsonNode node, Pattern only) {
        this.only = only;
        return of("", node);
    }

    private JsonNode of(String name, JsonNode node) {
        if (node.isObject()) {
            ObjectNode made = NODES.objectNode();
            for (Map.Entry<String, JsonNode> field : node.properties()) {
                String key = field.getKey();
                if (key.equals("records")) {
                    batches(made, field.getValue());
                } else {
                    made.set(key, of(key, field.getValue()));
                }
            }
            return made;
        }
        if (node.isArray()) {
            ArrayNode made = NODES.arrayNode();
            for (JsonNode item : node) {
                // Topics in which Kafka keeps its own state.
                String called = item.path("name").asText(item.path("topic").asText(item.path("topicName").asText("")));
                if (item.path("resourceType").asInt(2) == 2) {
                    called = item.path("resourceName").asText(called);
                }
                String id = item.path("groupId").asText(item.path("transactionalId").asText(called));
                if (only != null && !id.isEmpty() && !only.matcher(id).matches()) {
                    continue;
                }
                if (!called.equals("__consumer_offsets") && !called.equals("__transaction_state")
                    && !called.equals("__share_group_state")) {
                    made.add(of(name, item));
                }
            }
            return name.equals("partitions") || name.equals("partitionIndexes") ? sorted(made) : made;
        }
        return scalar(name, node);
    }

    /** Numbers of partitions, whose order says nothing. */
    private static ArrayNode sorted(ArrayNode list) {
        java.util.List<JsonNode> items = new java.util.ArrayList<>();
        list.forEach(items::add);
        if (items.stream().allMatch(JsonNode::isIntegralNumber)) {
            items.sort(java.util.Comparator.comparingLong(JsonNode::asLong));
        }
        return NODES.arrayNode().addAll(items);
    }

    private JsonNode scalar(String name, JsonNode node) {
        if (node.isBinary()) {
            return text(node.asText().isEmpty() ? "no bytes" : node.asText());
        }
        if (node.isTextual()) {
            String value = node.asText();
            if (name.equals("errorMessage") || name.equals("batchIndexErrorMessage") || name.equals("assignmentError")) {
                return text(value.isEmpty() ? "empty" : "a text");
            }
            if (name.equals("resourceName") && value.equals(number)) {
                return text("the node");
            }
            if (name.equals("clusterId") && !value.isEmpty()) {
                return text("an id");
            }
            if (name.equals("documentation") && !value.isEmpty()) {
                return text("a text");
            }
            if (name.equals("logDir") && !value.isEmpty()) {
                return text("a folder");
            }
            if (name.equals("value")) {
                value = value.replace(":" + server.port, ":(its port)");
            }
            for (Map.Entry<String, String> alias : server.aliases.entrySet()) {
                if (value.equals(alias.getKey())) {
                    return text(alias.getValue());
                }
            }
            if (name.equals("memberId") || name.equals("topicId") || name.equals("leader")) {
                boolean none = value.equals("AAAAAAAAAAAAAAAAAAAAAA") || value.equals("AAAAAAAAAAAAAAAAAAAAAQ");
                value = UUID.matcher(value).replaceAll("(id)");
                if (!none && ID.matcher(value).matches()) {
                    return text("(id)");
                }
            }
            return text(LONG.matcher(VERSION.matcher(value).replaceAll("")).replaceAll("$1*"));
        }
        if (node.isIntegralNumber()) {
            long value = node.asLong();
            if (name.equals("port") && value == server.port) {
                return text("its port");
            }
            String alias = server.aliases.get(name + "=" + value);
            if (alias != null) {
                return text(alias);
            }
            String lower = name.toLowerCase(java.util.Locale.ROOT);
            boolean time = lower.endsWith("timestamp") || lower.endsWith("timems") || lower.endsWith("timestampms");
            if (time && Math.abs(value - System.currentTimeMillis()) < NEAR_MS) {
                return text("now");
            } else if (time && Math.abs(value - base) < NEAR_MS) {
                return text("the first time and " + (value - base));
            }
            boolean size = name.equals("partitionSize") || name.equals("totalBytes") || name.equals("usableBytes");
            if (size || name.equals("sessionId") || name.equals("cordonedBytes")) {
                return text(value > 0 ? "above 0" : Long.toString(value));
            }
        }
        return node;
    }

    private static JsonNode text(String value) {
        return TextNode.valueOf(value);
    }

    /** Batches and records in place of bytes. */
    private void batches(ObjectNode into, JsonNode records) {
        if (records.isNull()) {
            into.putNull("records");
            return;
        }
        ArrayNode batches = into.putArray("batches");
        byte[] bytes = Base64.getDecoder().decode(records.asText());
        for (MutableRecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(bytes)).batches()) {
            ObjectNode told = batches.addObject();
            told.put("firstOffset", batch.baseOffset());
            told.put("lastOffset", batch.lastOffset());
            told.put("leaderEpoch", batch.partitionLeaderEpoch());
            told.put("codec", batch.compressionType().name);
            told.put("timestampType", batch.timestampType().name);
            told.set("maxTimestamp", time(batch.timestampType(), batch.maxTimestamp()));
            told.set("producerId", scalar("producerId", NODES.numberNode(batch.producerId())));
            told.put("producerEpoch", batch.producerEpoch());
            told.put("firstSequence", batch.baseSequence());
            told.put("transactional", batch.isTransactional());
            told.put("control", batch.isControlBatch());
            if (batch instanceof DefaultRecordBatch) {
                told.put("valid", ((DefaultRecordBatch) batch).isValid());
            }
            ArrayNode list = told.putArray("records");
            for (Record record : batch) {
                ObjectNode one = list.addObject();
                one.put("offset", record.offset());
                one.set("timestamp", batch.isControlBatch() ? text("any") : time(batch.timestampType(), record.timestamp()));
                one.put("key", bytes(record.key()));
                one.put("value", bytes(record.value()));
                for (Header header : record.headers()) {
                    one.put("header " + header.key(), header.value() == null ? "null" : new String(header.value()));
                }
            }
            if (batch.isControlBatch()) {
                told.put("maxTimestamp", "any");
            }
        }
    }

    private JsonNode time(TimestampType type, long value) {
        boolean now = type == TimestampType.LOG_APPEND_TIME && Math.abs(value - System.currentTimeMillis()) < NEAR_MS;
        return now ? text("now") : Math.abs(value - base) < NEAR_MS ? text("the first time and " + (value - base)) : NODES.numberNode(value);
    }

    private static String bytes(ByteBuffer bytes) {
        if (bytes == null) {
            return null;
        }
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return new String(copy, java.nio.charset.StandardCharsets.ISO_8859_1);
    }
}
