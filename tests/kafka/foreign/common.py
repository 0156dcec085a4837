"""What the scripts share: how they wait, and how records look on their way to the test that judges them."""

import base64, json, sys, time

PATIENCE = 120
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def wait(what, check, pause=0.05):
    """Until it holds."""
    end = time.time() + PATIENCE
    while not check():
        assert time.time() < end, what() if callable(what) else what
        time.sleep(pause)


def _bytes(text):
    return None if text is None else base64.b64decode(text)


def _text(data):
    return None if data is None else base64.b64encode(data).decode()


def samples():
    """From stdin: the records to write (key, value, headers, time), and how many the native client has written."""
    asked = json.loads(sys.stdin.read())
    records = [(_bytes(record["key"]), _bytes(record["value"]), [(name, _bytes(value)) for name, value in record["headers"]],
                record["timestamp"]) for record in asked["theirs"]]
    return records, asked["native"]


def show(topic, key, value, headers, timestamp):
    headers = [(name, _text(value)) for name, value in headers]
    print(json.dumps({"topic": topic, "key": _text(key), "value": _text(value), "headers": headers, "timestamp": timestamp}))


def cross(write, read):
    """Writes the samples with every codec; shows what it reads of them and of what the native client wrote."""
    records, count = samples()
    for codec in CODECS:
        write(f"theirs.{codec}", codec, records)
        for topic, number in [(f"theirs.{codec}", len(records)), (f"native.{codec}", count)]:
            for record in read(topic, number):
                show(topic, *record)
