"""A client of NATS that is not ours: makes streams, publishes, and looks at consumers."""
import asyncio
import json
import re
import sys

import nats
from nats.js import api


async def connected(url):
    async def quiet(_):
        pass

    return await nats.connect(url, error_cb=quiet, max_reconnect_attempts=-1, reconnect_time_wait=0.05)


async def patiently(do):
    """Until it is done: a server may be on its way up."""
    while True:
        try:
            return await do()
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as why:
            if isinstance(why, nats.js.errors.NotFoundError):
                raise
            await asyncio.sleep(0.02)


async def make(js, _, stream, subjects, more="{}"):
    config = api.StreamConfig(name=stream, subjects=subjects.split(","), **json.loads(more))
    await patiently(lambda: js.add_stream(config))


async def consumer(js, _, stream, name, more):
    config = api.ConsumerConfig(durable_name=name, **{**{"ack_policy": "explicit"}, **json.loads(more)})
    await js.add_consumer(stream, config)


async def publish(js, _, subjects, first, last):
    """Each with an id, so that one that is published again, after a server was lost, is there once."""
    subjects, gate = subjects.split(","), asyncio.Semaphore(1)

    async def one(n):
        subject = subjects[n % len(subjects)]
        tenant = subject.split(".")[1]
        body = json.dumps({"tenant": tenant, "n": n}, separators=(",", ":")).encode()
        async with gate:
            await patiently(lambda: js.publish(subject, body, timeout=1, headers={"Nats-Msg-Id": str(n)}))

    await asyncio.gather(*(one(n) for n in range(int(first), int(last))))
    print(int(last) - int(first))


async def raw(js, _, subject, *bodies):
    for body in bodies:
        await js.publish(subject, body.encode())


def body_of(line):
    """A line of a batch as the body that it stands for."""
    if not line.startswith(b"\\"):
        return line
    return re.sub(rb"\\(.)", lambda pair: {b"n": b"\n", b"\\": b"\\"}[pair[1]], line[1:], flags=re.S)


async def published(js, _, stream):
    """What is in a stream: of each message its subject and headers, and its lines as bodies."""
    info = await patiently(lambda: js.stream_info(stream))
    left, found = info.state.messages, []
    if left:
        reader = await js.subscribe(">", stream=stream, ordered_consumer=True)
    while left > 0:
        message = await reader.next_msg(timeout=10)
        left -= 1
        bodies = [body_of(line).hex() for line in message.data.split(b"\n")[:-1]]
        number = message.metadata.sequence.stream
        found.append({"subject": message.subject, "number": number, "headers": message.headers, "bodies": bodies})
    print(json.dumps(found))


async def late(js, _, subject, name, expected):
    """A message with a name that expects another one before it, as a batch is published; what the server says."""
    headers = {"Nats-Msg-Id": name, "Nats-Expected-Last-Subject-Sequence": expected}
    try:
        ack = await js.publish(subject, b"late\n", headers=headers)
        print("known" if ack.duplicate else "stored")
    except nats.js.errors.APIError as why:
        print(why.err_code)


async def forget(js, _, subject):
    """Waits until the server has forgotten the names of all that was published before."""
    probe = lambda: js.publish(subject, b"probe\n", headers={"Nats-Msg-Id": "probe"})
    await probe()
    while (await probe()).duplicate:
        await asyncio.sleep(0.02)


async def edit(js, _, stream, more):
    config = (await js.stream_info(stream)).config
    await js.update_stream(config.evolve(**json.loads(more)))


async def remove(js, _, stream):
    await js.delete_stream(stream)


async def config(js, _, stream):
    print(json.dumps((await js.stream_info(stream)).config.as_dict()))


async def take(js, _, stream, name, count):
    """Has messages delivered, and does nothing with them: as deliveries that are lost."""
    puller, left = await js.pull_subscribe_bind(name, stream), int(count)
    while left > 0:
        left -= len(await puller.fetch(left, timeout=5))


async def delete(js, _, stream, number):
    await js.delete_msg(stream, int(number))


async def until(js, _, stream, name, key, value):
    """Waits until a number of a consumer is so much."""
    while True:
        info = await patiently(lambda: js.consumer_info(stream, name))
        found = {
            "pending": info.num_ack_pending,
            "floor": info.ack_floor.stream_seq,
            "redelivered": info.num_redelivered,
            "left": info.num_pending,
        }
        if found[key] == int(value):
            print(json.dumps({**found, "ack_wait": info.config.ack_wait}))
            return
        await asyncio.sleep(0.02)


async def progress(_, nc, stream, name, count):
    """Waits until a consumer's client has said so often that it is at work."""
    seen, done = 0, asyncio.Event()

    async def look(message):
        nonlocal seen
        seen += message.data == b"+WPI"
        if seen >= int(count):
            done.set()

    await nc.subscribe(f"$JS.ACK.{stream}.{name}.>", cb=look)
    await done.wait()


async def main(command, url, *words):
    nc = await connected(url)
    await globals()[command](nc.jetstream(timeout=2), nc, *words)
    await nc.close()


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 110))
