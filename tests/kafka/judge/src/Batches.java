import java.nio.ByteBuffer;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;

/** Batches of records, good and bad. */
final class Batches {
    private Batches() {}

    static SimpleRecord[] records(long base, String... values) {
        SimpleRecord[] records = new SimpleRecord[values.length];
        for (int at = 0; at < values.length; at++) {
            Header[] headers = {new RecordHeader("h", ("of " + at).getBytes()), new RecordHeader("none", (byte[]) null)};
            records[at] = new SimpleRecord(base + at, ("k" + at).getBytes(), values[at] == null ? null : values[at].getBytes(), headers);
        }
        return records;
    }

    static MemoryRecords plain(long base, String... values) {
        return MemoryRecords.withRecords(Compression.NONE, records(base, values));
    }

    static MemoryRecords compressed(String codec, long base, String... values) {
        return MemoryRecords.withRecords(Compression.of(CompressionType.forName(codec)).build(), records(base, values));
    }

    static MemoryRecords keyless(long base, int count) {
        SimpleRecord[] records = new SimpleRecord[count];
        for (int at = 0; at < count; at++) {
            records[at] = new SimpleRecord(base + at, at % 2 == 0 ? ("k" + at).getBytes() : null, "v".getBytes());
        }
        return MemoryRecords.withRecords(Compression.NONE, records);
    }

    static MemoryRecords idempotent(long base, long producer, int epoch, int sequence, String... values) {
        return MemoryRecords.withIdempotentRecords(Compression.NONE, producer, (short) epoch, sequence, records(base, values));
    }

    static MemoryRecords transactional(long base, long producer, int epoch, int sequence, String... values) {
        return MemoryRecords.withTransactionalRecords(Compression.NONE, producer, (short) epoch, sequence, records(base, values));
    }

    static MemoryRecords old(int magic, long base) {
        SimpleRecord[] records = {new SimpleRecord(base, "k".getBytes(), "v".getBytes())};
        return MemoryRecords.withRecords((byte) magic, 0, Compression.NONE, TimestampType.CREATE_TIME, RecordBatch.NO_PRODUCER_ID,
            RecordBatch.NO_PRODUCER_EPOCH, RecordBatch.NO_SEQUENCE, 0, false, records);
    }

    static MemoryRecords empty() {
        return MemoryRecords.readableRecords(ByteBuffer.allocate(0));
    }

    /** Two batches one after the other. */
    static MemoryRecords two(MemoryRecords one, MemoryRecords other) {
        ByteBuffer both = ByteBuffer.allocate(one.sizeInBytes() + other.sizeInBytes());
        both.put(one.buffer().duplicate()).put(other.buffer().duplicate()).flip();
        return MemoryRecords.readableRecords(both);
    }

    /** The batch with one byte changed, counted from its begin. */
    static MemoryRecords changed(MemoryRecords batch, int at, int value) {
        ByteBuffer copy = ByteBuffer.allocate(batch.sizeInBytes());
        copy.put(batch.buffer().duplicate()).flip();
        copy.put(at, (byte) value);
        return MemoryRecords.readableRecords(copy);
    }

    /** The same with a right checksum. */
    static MemoryRecords forged(MemoryRecords batch, int at, int value) {
        ByteBuffer copy = changed(batch, at, value).buffer().duplicate();
        java.util.zip.CRC32C crc = new java.util.zip.CRC32C();
        ByteBuffer checked = copy.duplicate();
        checked.position(21);
        crc.update(checked);
        copy.putInt(17, (int) crc.getValue());
        return MemoryRecords.readableRecords(copy);
    }

    /** The batch without its last bytes. */
    static MemoryRecords cut(MemoryRecords batch, int bytes) {
        ByteBuffer copy = ByteBuffer.allocate(batch.sizeInBytes() - bytes);
        ByteBuffer from = batch.buffer().duplicate();
        from.limit(from.limit() - bytes);
        copy.put(from).flip();
        return MemoryRecords.readableRecords(copy);
    }
}
