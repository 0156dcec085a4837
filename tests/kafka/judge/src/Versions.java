import com.fasterxml.jackson.databind.JsonNode;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.protocol.ApiKeys;

/** ApiVersions, and versions and keys that are not answered. */
final class Versions {
    private Versions() {}

    /** Notes which versions both answer. */
    static void learn(Judge judge) throws Exception {
        Map<Short, short[]> ours = ranges(judge.tidelog);
        for (Map.Entry<Short, short[]> one : ranges(judge.kafka).entrySet()) {
            short[] other = ours.get(one.getKey());
            ApiKeys key = ApiKeys.forId(one.getKey());
            if (other != null) {
                int first = Math.max(one.getValue()[0], other[0]);
                // Both say that Produce begins at 0, and mean 3.
                judge.range(key, key == ApiKeys.PRODUCE ? Math.max(first, 3) : first, Math.min(one.getValue()[1], other[1]));
            }
        }
    }

    private static Map<Short, short[]> ranges(Server server) throws Exception {
        JsonNode answer = Judge.until(server, ApiKeys.API_VERSIONS, 3, "{clientSoftwareName:'judge', clientSoftwareVersion:'1'}",
            found -> found.path("errorCode").asInt(-1) == 0);
        Map<Short, short[]> ranges = new HashMap<>();
        for (JsonNode api : answer.get("apiKeys")) {
            ranges.put((short) api.get("apiKey").asInt(), new short[] {(short) api.get("minVersion").asInt(), (short) api.get("maxVersion").asInt()});
        }
        return ranges;
    }

    static void run(Judge judge) throws Exception {
        for (short v : judge.versions(ApiKeys.API_VERSIONS)) {
            judge.ask("ordinary", ApiKeys.API_VERSIONS, v, v < 3 ? "{}" : "{clientSoftwareName:'judge', clientSoftwareVersion:'1.0'}");
            if (v >= 3) {
                judge.ask("without a name", ApiKeys.API_VERSIONS, v, "{}");
                judge.ask("with a bad name", ApiKeys.API_VERSIONS, v, "{clientSoftwareName:'-bad name-', clientSoftwareVersion:'1.0'}");
            }
        }
        judge.raw("of a version that is not there", ApiKeys.API_VERSIONS, 99, 2, new byte[] {2, 'a', 2, 'b', 0}, 5000);
        for (ApiKeys key : ApiKeys.values()) {
            // Version 0 that is gone, and one that never was. What only one of the two answers says ApiVersions.
            if (!judge.has(key) || key == ApiKeys.API_VERSIONS) {
                continue;
            }
            short first = judge.versions(key).get(0);
            if (first > 0) {
                judge.raw("of a version before the first", key, first - 1, 1, new byte[64], 3000);
            }
            judge.raw("of a version that is not there", key, 99, 2, new byte[64], 3000);
            short last = judge.versions(key).get(judge.versions(key).size() - 1);
            judge.raw("without a body", key, last, key.requestHeaderVersion(last), new byte[0], 3000);
        }
        produceOfOld(judge);
    }

    /** Produce of version 0 to 2 is offered and not answered. */
    private static void produceOfOld(Judge judge) throws Exception {
        byte[] body = ByteBuffer.allocate(2 + 4 + 4 + 2 + 1 + 4 + 4 + 4).putShort((short) 1).putInt(1000).putInt(1)
            .putShort((short) 1).put((byte) 'a').putInt(1).putInt(0).putInt(0).array();
        for (int version = 0; version < 3; version++) {
            for (Server server : new Server[] {judge.kafka, judge.tidelog}) {
                server.send("raw", ApiKeys.PRODUCE.id, (short) version, (short) 1, ByteBuffer.wrap(body));
                ByteBuffer answer = server.receive("raw", 3000);
                server.variables.put("old", answer == null ? Server.CLOSED : answer.remaining() == 0 ? Server.SILENT : hex(answer));
                server.disconnect("raw");
            }
            Object one = judge.kafka.variables.get("old");
            Object other = judge.tidelog.variables.get("old");
            if (!one.equals(other)) {
                judge.differ(ApiKeys.PRODUCE, version, "of a version before the first", "answer", one, other);
            }
        }
    }

    private static String hex(ByteBuffer bytes) {
        StringBuilder text = new StringBuilder("bytes ");
        bytes.position(bytes.position() + 4);
        while (bytes.hasRemaining()) {
            text.append(String.format("%02x", bytes.get()));
        }
        return text.toString();
    }
}
