import com.fasterxml.jackson.core.json.JsonReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;

/**
 * Requests from text: JSON with unquoted names and single quotes, laid over the defaults of Kafka's generated class. A string
 * that is "$name" stands for a variable of the server (an id that it gave out, or a batch of records).
 */
final class Requests {
    static final JsonMapper JSON = JsonMapper.builder()
        .enable(JsonReadFeature.ALLOW_UNQUOTED_FIELD_NAMES)
        .enable(JsonReadFeature.ALLOW_SINGLE_QUOTES)
        .enable(JsonReadFeature.ALLOW_TRAILING_COMMA)
        .build();

    private Requests() {}

    static ApiMessage of(ApiKeys key, String text, Map<String, Object> variables) throws Exception {
        ApiMessage message = ApiMessageType.fromApiKey(key.id).newRequest();
        fill(message, JSON.readTree(text), variables);
        return message;
    }

    private static void fill(Object message, JsonNode node, Map<String, Object> variables) throws Exception {
        for (Map.Entry<String, JsonNode> field : node.properties()) {
            String setter = "set" + Character.toUpperCase(field.getKey().charAt(0)) + field.getKey().substring(1);
            Method found = null;
            for (Method method : message.getClass().getMethods()) {
                if (method.getName().equals(setter) && method.getParameterCount() == 1) {
                    found = method;
                }
            }
            if (found == null) {
                throw new IllegalArgumentException(message.getClass().getSimpleName() + " has no " + field.getKey());
            }
            found.invoke(message, value(found.getGenericParameterTypes()[0], found.getParameterTypes()[0], field.getValue(), variables));
        }
    }

    private static Object value(Type type, Class<?> raw, JsonNode node, Map<String, Object> variables) throws Exception {
        if (node.isTextual() && node.textValue().startsWith("$")) {
            String name = node.textValue().substring(1);
            if (!variables.containsKey(name)) {
                throw new IllegalArgumentException("no variable " + name);
            }
            Object known = variables.get(name);
            if (!(known instanceof String) && !(known instanceof Number)) {
                return known;
            }
            node = JSON.valueToTree(known);
        }
        if (node.isNull()) {
            return null;
        } else if (raw == boolean.class) {
            return node.asBoolean();
        } else if (raw == byte.class || raw == Byte.class) {
            return (byte) node.asInt();
        } else if (raw == short.class) {
            return (short) node.asInt();
        } else if (raw == int.class || raw == Integer.class) {
            return node.asInt();
        } else if (raw == long.class || raw == Long.class) {
            return node.asLong();
        } else if (raw == double.class) {
            return node.asDouble();
        } else if (raw == String.class) {
            return node.asText();
        } else if (raw == byte[].class) {
            return node.asText().getBytes(java.nio.charset.StandardCharsets.UTF_8);
        } else if (raw == Uuid.class) {
            return Uuid.fromString(node.asText());
        }
        if (node.isObject()) {
            Object made = raw.getConstructor().newInstance();
            fill(made, node, variables);
            return made;
        }
        Type element;
        Collection<Object> list;
        if (raw == List.class) {
            element = ((ParameterizedType) type).getActualTypeArguments()[0];
            list = new ArrayList<>();
        } else {
            // A collection of Kafka's own, which keeps what is given twice.
            element = ((ParameterizedType) raw.getGenericSuperclass()).getActualTypeArguments()[0];
            @SuppressWarnings("unchecked")
            Collection<Object> own = (Collection<Object>) raw.getConstructor().newInstance();
            list = own;
        }
        Class<?> of = (Class<?>) element;
        boolean plain = of.getPackageName().startsWith("java.") || of == Uuid.class;
        for (JsonNode item : node) {
            if (plain) {
                list.add(value(of, of, item, variables));
            } else {
                Object made = of.getConstructor().newInstance();
                fill(made, item, variables);
                list.add(made);
            }
        }
        return list;
    }
}
