import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;

/** Kafka's own Java client against a server: the administration, producers, consumers, transactions. Argument: its address. */
public final class Clients {
    private Clients() {}

    public static void main(String[] arguments) throws Exception {
        System.out.println("kafka-clients of " + Admin.class.getProtectionDomain().getCodeSource().getLocation().getPath().replaceAll(".*/", ""));
        Checks checks = new Checks();
        String server = arguments[0];
        Properties properties = new Properties();
        properties.putAll(Map.of("bootstrap.servers", server, "default.api.timeout.ms", "15000", "request.timeout.ms", "10000"));
        try (Admin admin = Admin.create(properties)) {
            new Administration(checks, admin, server).run();
            new Traffic(checks, admin, server).run();
        }
        checks.end();
    }
}
