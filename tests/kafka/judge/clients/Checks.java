import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.errors.TimeoutException;

/** Runs one check after the other and says at the end which failed. */
final class Checks {
    /** A check that returns nothing. */
    interface Check {
        void run() throws Exception;
    }

    /** What does not work so far. */
    private static final java.util.Set<String> NOT_YET = java.util.Set.of("describeTopics by id");

    private final List<String> failed = new ArrayList<>();
    private final List<String> refused = new ArrayList<>();
    private int passed;

    /** What must work. */
    void works(String name, Check check) {
        long began = System.nanoTime();
        try {
            check.run();
            passed++;
            if (NOT_YET.contains(name)) {
                System.out.println("works by now: " + name);
            }
        } catch (Throwable wrong) {
            if (NOT_YET.contains(name)) {
                System.out.println("not yet: " + name + ": " + cause(wrong));
                return;
            }
            failed.add(name);
            System.out.println("FAILED " + name + ": " + cause(wrong));
            Throwable root = cause(wrong);
            for (int at = 0; at < Math.min(4, root.getStackTrace().length); at++) {
                System.out.println("    " + root.getStackTrace()[at]);
            }
        }
        long millis = (System.nanoTime() - began) / 1_000_000;
        if (millis > 3000) {
            System.out.println("slow: " + name + " " + millis + " ms");
        }
    }

    /** What works or is refused in so many words: with an error of the protocol, not with a time-out or an exception of the client. */
    void clear(String name, Callable<KafkaFuture<?>> call) {
        works(name, () -> {
            try {
                call.call().get(20, TimeUnit.SECONDS);
            } catch (ExecutionException | InvocationTargetException | ApiException error) {
                Throwable cause = cause(error);
                if (!(cause instanceof ApiException) || cause instanceof TimeoutException) {
                    throw error;
                }
                refused.add(name + " (" + cause.getClass().getSimpleName() + ")");
            }
        });
    }

    /** What must be refused with this error. */
    void refuses(String name, Class<? extends Exception> wanted, Check check) {
        works(name, () -> {
            try {
                check.run();
            } catch (Exception error) {
                if (wanted.isInstance(cause(error))) {
                    return;
                }
                throw error;
            }
            throw new AssertionError("was not refused");
        });
    }

    static Throwable cause(Throwable error) {
        while ((error instanceof ExecutionException || error instanceof InvocationTargetException) && error.getCause() != null) {
            error = error.getCause();
        }
        return error;
    }

    static void equal(Object found, Object wanted) {
        if (!java.util.Objects.equals(found, wanted)) {
            throw new AssertionError(found + " instead of " + wanted);
        }
    }

    static void that(boolean holds, Object told) {
        if (!holds) {
            throw new AssertionError(String.valueOf(told));
        }
    }

    /** Ends the program. */
    void end() {
        System.out.printf("%d checks passed, %d failed %s; refused in so many words: %s%n", passed, failed.size(), failed, refused);
        System.out.println(failed.isEmpty() ? "ok" : "failed");
        System.out.flush();
        Runtime.getRuntime().halt(failed.isEmpty() ? 0 : 1);
    }
}
