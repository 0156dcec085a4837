import com.fasterxml.jackson.databind.JsonNode;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;

/** One of the two servers: its connections, and what it has given out. */
final class Server {
    /** What a server does that does not answer. */
    static final String CLOSED = "closes the connection", SILENT = "does not answer";
    static final int PATIENCE_MS = 20_000;

    final String name;
    final String host;
    final int port;
    /** Values for requests: ids that the server gave out, batches of records. */
    final Map<String, Object> variables = new HashMap<>();
    /** Names for what the server has given out, so that answers can be compared. */
    final Map<String, String> aliases = new LinkedHashMap<>();
    private final Map<String, Socket> connections = new HashMap<>();
    private int correlation;

    Server(String name, String address) {
        int colon = address.lastIndexOf(':');
        this.name = name;
        this.host = address.substring(0, colon);
        this.port = Integer.parseInt(address.substring(colon + 1));
    }

    Socket connection(String label) throws IOException {
        Socket socket = connections.get(label);
        if (socket == null || socket.isClosed()) {
            socket = new Socket();
            socket.setTcpNoDelay(true);
            socket.connect(new InetSocketAddress(host, port), PATIENCE_MS);
            connections.put(label, socket);
        }
        return socket;
    }

    void disconnect(String label) throws IOException {
        Socket socket = connections.remove(label);
        if (socket != null) {
            socket.close();
        }
    }

    /** Sends a request; its correlation id. */
    int send(String label, ApiKeys key, short version, ApiMessage body) throws IOException {
        ByteBuffer encoded = MessageUtil.toByteBufferAccessor(body, version).buffer();
        return send(label, key.id, version, key.requestHeaderVersion(version), encoded);
    }

    int send(String label, short key, short version, short headerVersion, ByteBuffer body) throws IOException {
        int id = ++correlation;
        RequestHeaderData header = new RequestHeaderData().setRequestApiKey(key).setRequestApiVersion(version)
            .setCorrelationId(id).setClientId("judge");
        ByteBuffer head = MessageUtil.toByteBufferAccessor(header, headerVersion).buffer();
        ByteBuffer frame = ByteBuffer.allocate(4 + head.remaining() + body.remaining());
        frame.putInt(head.remaining() + body.remaining()).put(head).put(body.duplicate());
        try {
            connection(label).getOutputStream().write(frame.array());
        } catch (IOException closed) {
            // The answer says so.
        }
        return id;
    }

    /** The answer as it came; null after a close, an empty one where there is none in time. */
    ByteBuffer receive(String label, int patienceMs) throws IOException {
        Socket socket = connection(label);
        try {
            socket.setSoTimeout(patienceMs);
            DataInputStream in = new DataInputStream(socket.getInputStream());
            byte[] frame = new byte[in.readInt()];
            in.readFully(frame);
            return ByteBuffer.wrap(frame);
        } catch (SocketTimeoutException late) {
            disconnect(label);
            return ByteBuffer.allocate(0);
        } catch (EOFException | java.net.SocketException closed) {
            disconnect(label);
            return null;
        }
    }

    /** The answer as JSON, in the words of Kafka's message classes. */
    JsonNode answer(String label, int id, ApiKeys key, short version, int patienceMs) throws Exception {
        ByteBuffer frame = receive(label, patienceMs);
        if (frame == null || frame.remaining() == 0) {
            return Requests.JSON.createObjectNode().put("answer", frame == null ? CLOSED : SILENT);
        }
        try {
            // Who does not know the version of ApiVersions answers in version 0.
            short told = key == ApiKeys.API_VERSIONS && version > key.latestVersion() ? 0 : version;
            ByteBufferAccessor in = new ByteBufferAccessor(frame);
            ResponseHeaderData header = new ResponseHeaderData(in, key.responseHeaderVersion(told));
            if (header.correlationId() != id) {
                return Requests.JSON.createObjectNode().put("answer", "has another correlation id");
            }
            ApiMessage message = ApiMessageType.fromApiKey(key.id).newResponse();
            message.read(in, told);
            JsonNode json = (JsonNode) Class.forName(message.getClass().getName() + "JsonConverter")
                .getMethod("write", message.getClass(), short.class).invoke(null, message, told);
            if (frame.hasRemaining()) {
                ((com.fasterxml.jackson.databind.node.ObjectNode) json).put("bytesBehind", frame.remaining());
            }
            return json;
        } catch (RuntimeException unreadable) {
            return Requests.JSON.createObjectNode().put("answer", "is unreadable: " + unreadable);
        }
    }
}
