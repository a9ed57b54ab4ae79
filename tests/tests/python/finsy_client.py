"""finsy drives a switch: address, then P4Info and JSON of the gateway and of a program with
packet I/O. finsy refuses a table of which two match fields clash by their last part."""

import asyncio
import sys
from pathlib import Path

import finsy as fy

address, p4info, pipeline, packet_p4info, packet_pipeline = sys.argv[1:]

# Longer than any of it takes.
DEADLINE_S = 60


async def read(switch, wanted):
    return [entity async for entity in switch.read([wanted])]


def flow(src, action, **kwargs):
    match = fy.Match(
        vpc=7, src=src, dst="192.0.2.80", proto=6, src_port=1234, dst_port=80
    )
    return fy.P4TableEntry("flow4", match=match, action=action, **kwargs)


async def flows(switch):
    snat = fy.Action("flow4_snat", vpc=7, src="203.0.113.10", src_port=5000)
    forward = fy.Action("flow4_forward", vpc=9)
    entries = [flow("10.0.0.2", snat, metadata=b"mine"), flow("10.0.0.3", forward)]
    await switch.insert(entries)
    try:
        await switch.insert(entries[:1])
        raise AssertionError("was not refused")
    except fy.P4ClientError as error:
        assert error.details[0].canonical_code == fy.GRPCStatusCode.ALREADY_EXISTS
        assert "flow4" in error.details[0].message
    found = {str(e.match["src"]): e for e in await read(switch, fy.P4TableEntry("flow4"))}
    assert len(found) == 2
    mine = [e for e in found.values() if e.metadata == b"mine"]
    assert len(mine) == 1 and mine[0].action.name == "flow4_snat", mine
    assert mine[0].action.args["src_port"] == 5000, mine

    counted = flow("10.0.0.2", forward)
    counted.counter_data = fy.P4CounterData(byte_count=500, packet_count=5)
    await switch.modify([counted])
    key = flow("10.0.0.2", None)
    counter = fy.P4DirectCounterEntry("flow4_counter", table_entry=key)
    [count] = await read(switch, counter)
    assert (count.packet_count, count.byte_count) == (5, 500)
    await switch.delete(entries)
    assert await read(switch, fy.P4TableEntry("flow4")) == []


async def idle(switch):
    notified = switch.read_idle_timeouts()
    waiting = asyncio.ensure_future(anext(notified))
    await asyncio.sleep(0)
    forward = fy.Action("flow4_forward", vpc=9)
    entry = flow("10.0.0.4", forward, idle_timeout_ns=1_000_000)
    await switch.insert([entry])
    notice = await waiting
    assert [e.table_id for e in notice.table_entry] == ["flow4"], notice
    await notified.aclose()
    await switch.delete([entry])


async def routes(switch):
    entries = [
        fy.P4TableEntry(
            "route4",
            match=fy.Match(vpc=7, dst="10.1.0.0/16"),
            action=fy.Action("to_nexthop", nexthop=3),
        ),
        fy.P4TableEntry("route4", match=fy.Match(vpc=7), action=fy.Action("blackhole")),
    ]
    await switch.insert(entries)
    found = await read(switch, fy.P4TableEntry("route4"))
    assert sorted(len(e.match) for e in found) == [1, 2]
    await switch.delete(entries)


async def groups(switch):
    member = fy.P4ActionProfileMember(
        "ecmp_selector", member_id=1, action=fy.Action("to_nexthop", nexthop=3)
    )
    group = fy.P4ActionProfileGroup(
        "ecmp_selector", group_id=1, members=[fy.P4Member(1, weight=2)]
    )
    entry = fy.P4TableEntry(
        "ecmp", match=fy.Match(group=5), action=fy.IndirectAction(group_id=1)
    )
    for step in (member, group, entry):
        await switch.insert([step])
    assert await read(switch, fy.P4ActionProfileGroup("ecmp_selector")) == [group]
    for step in (entry, group, member):
        await switch.delete([step])

    one_shot = fy.P4TableEntry(
        "ecmp",
        match=fy.Match(group=6),
        action=fy.IndirectAction(
            action_set=[
                (3, fy.Action("to_nexthop", nexthop=3)),
                (1, fy.Action("to_nexthop", nexthop=4)),
            ]
        ),
    )
    await switch.insert([one_shot])
    [found] = await read(switch, fy.P4TableEntry("ecmp"))
    assert found.action == one_shot.action, found
    await switch.delete([one_shot])


async def others(switch):
    drops = fy.P4CounterEntry("drops", index=1, data=fy.P4CounterData(packet_count=4))
    await switch.modify([drops])
    [found] = await read(switch, fy.P4CounterEntry("drops", index=1))
    assert found.packet_count == 4
    group = fy.P4MulticastGroupEntry(3, replicas=((1, 1), (2, 1)))
    await switch.insert([group])
    [found] = await read(switch, fy.P4MulticastGroupEntry())
    assert found.multicast_group_id == 3 and len(found.replicas) == 2
    await switch.delete([group])
    # All that finsy knows how to remove.
    await switch.delete_all()


async def gateway(switch):
    for part in (flows, idle, routes, groups, others):
        await part(switch)


async def packets(switch):
    """What is sent out of the CPU port comes back in."""
    incoming = switch.read_packets()
    waiting = asyncio.ensure_future(anext(incoming))
    await asyncio.sleep(0)
    # Port 0 and reason 3, as the program's packet_in header has them.
    payload = bytes([0, 3]) + bytes(range(60))
    await switch.write([fy.P4PacketOut(payload, egress_port=510, pad=0)])
    packet = await waiting
    assert packet.payload == bytes(range(60)), packet
    assert packet["reason"] == 3, packet
    await incoming.aclose()


async def session(info, blob, election_id, run):
    options = fy.SwitchOptions(
        p4info=Path(info), p4blob=Path(blob), p4force=True, initial_election_id=election_id
    )
    async with fy.Switch("sw", address, options) as switch:
        await run(switch)


async def both():
    await session(p4info, pipeline, 20, gateway)
    await session(packet_p4info, packet_pipeline, 21, packets)


async def main():
    await asyncio.wait_for(both(), DEADLINE_S)
    print("finsy: done")


asyncio.run(main())
