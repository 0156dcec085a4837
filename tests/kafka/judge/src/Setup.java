import java.util.List;
import org.apache.kafka.common.protocol.ApiKeys;

/** What the other parts take to be there. */
final class Setup {
    private Setup() {}

    static void run(Judge judge) throws Exception {
        judge.variable("none", "AAAAAAAAAAAAAAAAAAAAAQ");
        judge.variable("zero", "AAAAAAAAAAAAAAAAAAAAAA");
        // Kafka makes the topics of its coordinators when they are first asked for.
        for (Server server : List.of(judge.kafka, judge.tidelog)) {
            for (int kind = 0; kind < 2; kind++) {
                Judge.until(server, ApiKeys.FIND_COORDINATOR, 4, "{keyType:" + kind + ", coordinatorKeys:['first']}",
                    answer -> answer.at("/coordinators/0/errorCode").asInt(-1) == 0);
            }
            Judge.until(server, ApiKeys.OFFSET_FETCH, 8, "{groups:[{groupId:'first', topics:null}]}",
                answer -> answer.at("/groups/0/errorCode").asInt(-1) == 0);
            Judge.until(server, ApiKeys.INIT_PRODUCER_ID, 4, "{transactionalId:'first', transactionTimeoutMs:60000}",
                answer -> answer.path("errorCode").asInt(-1) == 0);
            Judge.until(server, ApiKeys.INIT_PRODUCER_ID, 4, "{transactionalId:null, transactionTimeoutMs:60000}",
                answer -> answer.path("errorCode").asInt(-1) == 0);
        }
        judge.topic("orders", 2, "");
        judge.topic("single", 1, "");
        for (Server server : List.of(judge.kafka, judge.tidelog)) {
            server.variables.put("batch", Batches.plain(judge.base, "a", "b", "c"));
            Judge.until(server, ApiKeys.PRODUCE, 9,
                "{acks:-1, timeoutMs:5000, topicData:[{name:'orders', partitionData:[{index:0, records:'$batch'}]}]}",
                answer -> answer.at("/responses/0/partitionResponses/0/errorCode").asInt(-1) == 0);
        }
    }
}
