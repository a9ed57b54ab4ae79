"""Asks a P4Runtime server the same questions as another, and prints what it answers, a line each:
the question's name, a tab, the answer in a canonical form. Arguments: address, P4Info and JSON of
the switch's test program `forward`."""

import queue
import sys
import threading

import google.protobuf.text_format as text_format
import grpc
from google.rpc import status_pb2
from p4.config.v1 import p4info_pb2
from p4.v1 import p4runtime_pb2 as p4, p4runtime_pb2_grpc

address, p4info_path, pipeline_path = sys.argv[1:]
DEADLINE_S = 20

with open(p4info_path) as file:
    p4info = text_format.Parse(file.read(), p4info_pb2.P4Info())
with open(pipeline_path, "rb") as file:
    pipeline = file.read()

IDS = {}
for kind in ("tables", "actions", "action_profiles", "counters", "direct_counters", "meters"):
    for one in getattr(p4info, kind):
        IDS[one.preamble.alias] = one.preamble.id

channel = grpc.insecure_channel(
    address, options=[("grpc.max_metadata_size", 1 << 20), ("grpc.max_receive_message_length", -1)]
)
stub = p4runtime_pb2_grpc.P4RuntimeStub(channel)


def say(name, answer):
    print(f"{name}\t{answer}", flush=True)


def code(error):
    """The status code of an RPC, or those of its updates."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            details = status_pb2.Status.FromString(value).details
            codes = []
            for any_ in details:
                one = p4.Error()
                any_.Unpack(one)
                codes.append(grpc_name(one.canonical_code))
            if codes:
                return " ".join(codes)
    return error.code().name


def grpc_name(number):
    return next(c.name for c in grpc.StatusCode if c.value[0] == number)


def ask(name, call):
    """The answer of an RPC, said in one word if it is an error."""
    try:
        answer = call()
    except grpc.RpcError as error:
        say(name, code(error))
        return None
    say(name, "OK")
    return answer


class Stream:
    """A client's stream."""

    def __init__(self):
        self.outgoing = queue.Queue()
        self.incoming = queue.Queue()
        responses = stub.StreamChannel(iter(self.outgoing.get, None))
        self.call = responses

        def receive():
            try:
                for response in responses:
                    self.incoming.put(response)
            except grpc.RpcError as error:
                self.incoming.put(error)

        threading.Thread(target=receive, daemon=True).start()

    def bid(self, low, device_id=1):
        request = p4.StreamMessageRequest()
        request.arbitration.device_id = device_id
        if low is not None:
            request.arbitration.election_id.low = low
        self.outgoing.put(request)

    def next(self):
        answer = self.incoming.get(timeout=DEADLINE_S)
        if isinstance(answer, grpc.RpcError):
            return code(answer)
        if answer.HasField("arbitration"):
            arbitration = answer.arbitration
            return f"{grpc_name(arbitration.status.code)} of {arbitration.election_id.low}"
        if answer.HasField("packet"):
            return f"packet {canonical(answer.packet)}"
        return canonical(answer)

    def close(self):
        self.outgoing.put(None)
        self.call.cancel()


def canonical(message):
    return text_format.MessageToString(message, as_one_line=True)


ELECTION = p4.Uint128(low=9)


def write(name, *updates, election=ELECTION, device_id=1, atomicity=0):
    request = p4.WriteRequest(device_id=device_id, atomicity=atomicity)
    if election is not None:
        request.election_id.CopyFrom(election)
    for kind, entity in updates:
        update = request.updates.add()
        update.type = kind
        update.entity.CopyFrom(entity)
    ask(name, lambda: stub.Write(request, timeout=DEADLINE_S))


def read(name, *entities, device_id=1):
    request = p4.ReadRequest(device_id=device_id)
    request.entities.extend(entities)
    found = []
    try:
        for response in stub.Read(request, timeout=DEADLINE_S):
            found += [canonical(entity) for entity in response.entities]
    except grpc.RpcError as error:
        say(name, code(error))
        return
    say(name, f"{len(found)}: " + " | ".join(sorted(found)))


def set_pipeline(name, action, election=ELECTION, blob=pipeline, info=p4info, cookie=7):
    request = p4.SetForwardingPipelineConfigRequest(device_id=1, action=action)
    if election is not None:
        request.election_id.CopyFrom(election)
    if info is not None:
        request.config.p4info.CopyFrom(info)
        request.config.p4_device_config = blob
        request.config.cookie.cookie = cookie
    ask(name, lambda: stub.SetForwardingPipelineConfig(request, timeout=DEADLINE_S))


def get_pipeline(name, response_type, device_id=1):
    request = p4.GetForwardingPipelineConfigRequest(
        device_id=device_id, response_type=response_type
    )
    answer = ask(name, lambda: stub.GetForwardingPipelineConfig(request, timeout=DEADLINE_S))
    if answer is not None:
        config = answer.config
        say(
            name + ", what",
            f"cookie {config.cookie.cookie}, {len(config.p4info.tables)} tables,"
            f" {len(config.p4_device_config)} bytes",
        )


INSERT, MODIFY, DELETE = p4.Update.INSERT, p4.Update.MODIFY, p4.Update.DELETE


def call(action, name, *values):
    action.action_id = IDS[name]
    for number, value in enumerate(values, 1):
        param = action.params.add()
        param.param_id = number
        param.value = value


def table(name, *matches, action=None, values=(), **fields):
    entity = p4.Entity()
    entry = entity.table_entry
    entry.table_id = IDS[name] if isinstance(name, str) else name
    for number, match in enumerate(matches, 1):
        if match is None:
            continue
        field = entry.match.add()
        field.field_id = number
        kind, parts = match
        target = getattr(field, kind)
        for part, value in parts.items():
            setattr(target, part, value)
    if action is not None:
        call(entry.action.action, action, *values)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entity


def exact(value):
    return ("exact", {"value": value})


def lpm(value, prefix_len):
    return ("lpm", {"value": value, "prefix_len": prefix_len})


def ternary(value, mask):
    return ("ternary", {"value": value, "mask": mask})


def range_(low, high):
    return ("range", {"low": low, "high": high})


def optional(value):
    return ("optional", {"value": value})


A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 1, 2])


def flow(sport=b"\x03\xe8", dport=b"\x07\xd0", port=b"\x01", **fields):
    keys = [exact(A), exact(B), exact(sport), exact(dport)]
    return table("flow", *keys, action="send", values=(port, b"\x02\0\0\0\0\x01"), **fields)


def without_pipeline():
    answer = stub.Capabilities(p4.CapabilitiesRequest())
    say("capabilities", answer.p4runtime_api_version)
    get_pipeline("get without a pipeline", 0)
    read("read without a pipeline", p4.Entity(table_entry=p4.TableEntry()))
    write("write without a pipeline or a stream", (INSERT, flow()), election=None)
    write("write with an id and without a stream", (INSERT, flow()))
    set_pipeline("commit without a saved pipeline", 4, election=None, info=None)


def arbitration():
    first, second, third = Stream(), Stream(), Stream()
    first.bid(9)
    say("first bid", first.next())
    second.bid(8)
    say("lower bid", second.next())
    third.bid(9)
    say("the same bid", third.next())
    third.close()
    set_pipeline("pipeline of a backup", 3, election=p4.Uint128(low=8))
    set_pipeline("pipeline without an id", 3, election=None)
    set_pipeline("unspecified action", 0)
    set_pipeline("verify", 1)
    set_pipeline("verify and commit", 3)
    get_pipeline("get all", 0)
    get_pipeline("get the cookie", 1)
    get_pipeline("get the P4Info", 2)
    get_pipeline("get the JSON", 3)
    first.close()
    say("the next after the primary", second.next())
    second.close()
    again = Stream()
    again.bid(9)
    say("back again", again.next())
    return again


def bad_entries():
    flow_keys = [exact(A), exact(B), exact(b"\x03\xe8"), exact(b"\x07\xd0")]
    send = {"action": "send", "values": (b"\x01", b"\x01")}
    drop = {"action": "drop"}
    cases = {
        "a missing field": table("flow", *flow_keys[:3], **send),
        "an unknown field": table("flow", *flow_keys, exact(b"\x01"), **send),
        "too large a value": flow(dport=b"\x01\0\0"),
        "a padded value": flow(dport=b"\0\0\x07\xd1"),
        "the wrong kind of match": table("flow", lpm(A, 32), *flow_keys[1:], **send),
        "a priority": flow(priority=1),
        "no action": table("flow", *flow_keys),
        "an unknown table": table(5, *flow_keys, **send),
        "another table's action": table("flow", *flow_keys, **drop),
        "too few parameters": table("flow", *flow_keys, action="send", values=(b"\x01",)),
        "too large a parameter": flow(port=b"\x02\0"),
        "an idle timeout where there is none": table(
            "route", lpm(A, 32), idle_timeout_ns=1, **drop
        ),
        "a negative idle timeout": flow(idle_timeout_ns=-1),
        "a constant table": table("classes", exact(b"\x01"), **drop),
        "an action for a profile": table("ecmp", exact(b"\x01"), **drop),
        "a prefix of length 0": table("route", lpm(A, 0), **drop),
        "a prefix too long": table("route", lpm(A, 33), **drop),
        "bits beyond the prefix": table("route", lpm(A, 24), **drop),
        "no priority": table("acl", **drop),
        "a mask of 0": table("acl", None, ternary(A, b"\0"), priority=1, **drop),
        "bits beyond the mask": table(
            "acl", None, ternary(A, b"\xff\0\0\0"), priority=1, **drop
        ),
        "a range upside down": table(
            "acl", None, None, range_(b"\x09", b"\x08"), priority=1, **drop
        ),
        "a range of all": table(
            "acl", None, None, range_(b"\0", b"\xff\xff"), priority=1, **drop
        ),
        "an optional too large": table("acl", optional(b"\x02\0"), priority=1, **drop),
        "an action for defaults only": table("acl", action="NoAction", priority=1),
        "an inserted default": table("route", is_default_action=True, **drop),
        "an empty entity": p4.Entity(),
    }
    for name, entity in cases.items():
        write(f"insert of {name}", (INSERT, entity))
    write("delete of the padded value", (DELETE, flow(dport=b"\x07\xd1")))
    write("no type", (p4.Update.UNSPECIFIED, flow()))
    write("the wrong election id", (INSERT, flow()), election=p4.Uint128(low=1))
    write("no election id", (INSERT, flow()), election=None)
    write("rollback", (INSERT, flow()), atomicity=1)
    write("dataplane atomic", (INSERT, flow()), atomicity=2)


def tables():
    acl = [
        table("acl", optional(b"\x01"), priority=3, action="drop"),
        table("acl", None, ternary(A, b"\xff\xff\xff\xff"), priority=7, action="metered"),
        table("acl", None, None, range_(b"\x05", b"\x09"), priority=5, action="drop"),
    ]
    rest = [
        flow(idle_timeout_ns=5_000_000_000, metadata=b"mine", controller_metadata=3),
        table("route", lpm(bytes([10, 1, 0, 0]), 16), action="use_nexthop", values=(b"\x09",)),
        table("route", action="drop"),
        table("nexthop", exact(b"\x09"), action="send", values=(b"\x01", b"\x02")),
    ]
    everything = [(INSERT, entity) for entity in acl + rest]
    write("insert", *everything)
    write("insert again, with one new", *everything, (INSERT, flow(sport=b"\x01")))
    for name in ("acl", "flow", "route", "nexthop", "classes", "ecmp"):
        read(f"read {name}", table(name))
        read(f"read the default of {name}", table(name, is_default_action=True))
    read("read all tables", p4.Entity(table_entry=p4.TableEntry()))
    read(
        "read all defaults",
        p4.Entity(table_entry=p4.TableEntry(is_default_action=True)),
    )
    with_counts = table("flow")
    with_counts.table_entry.counter_data.SetInParent()
    read("read flow with counters", with_counts)
    read("read one", flow())
    read("read one that is not there", flow(sport=b"\x77\x77"))
    read("read an unknown table", table(5))
    read("read nothing", p4.Entity())
    idle = table("acl")
    idle.table_entry.time_since_last_hit.SetInParent()
    read("read the idleness of acl", idle)
    write("modify", (MODIFY, flow(port=b"\x02")))
    read("read the modified", flow())
    write("modify one that is not there", (MODIFY, flow(sport=b"\x77\x77")))
    write("modify without an action", (MODIFY, table("route", lpm(bytes([10, 1, 0, 0]), 16))))
    write("delete one that is not there", (DELETE, flow(sport=b"\x77\x77")))
    write("delete with another action", (DELETE, flow(port=b"\x07", metadata=b"other")))
    default = {"is_default_action": True}
    route = table("route", action="use_nexthop", values=(b"\x09",), **default)
    write("set a default", (MODIFY, route))
    read("read the default", table("route", **default))
    write("reset a default", (MODIFY, table("route", **default)))
    read("read the reset default", table("route", **default))
    constant = table("nexthop", action="drop", **default)
    write("set a constant default", (MODIFY, constant))
    write("set an indirect default", (MODIFY, table("ecmp", action="drop", **default)))
    write("delete a default", (DELETE, route))


def full_table():
    updates = [
        (INSERT, table("acl", optional(bytes([port])), priority=1, action="drop"))
        for port in range(20, 36)
    ]
    write("more than the table holds", *updates)
    write("all of it away", *[(DELETE, entity) for _, entity in updates])


def profiles():
    profile = IDS["ecmp_selector"]

    def member(number, port=b"\x01"):
        entity = p4.Entity()
        entry = entity.action_profile_member
        entry.action_profile_id = profile
        entry.member_id = number
        call(entry.action, "send", port, b"\x01")
        return entity

    def group(number, members, max_size=8):
        entity = p4.Entity()
        entry = entity.action_profile_group
        entry.action_profile_id = profile
        entry.group_id = number
        entry.max_size = max_size
        for member_id, weight in members:
            one = entry.members.add()
            one.member_id, one.weight = member_id, weight
        return entity

    def indirect(key, **action):
        entity = table("ecmp", exact(key))
        for field, value in action.items():
            setattr(entity.table_entry.action, field, value)
        return entity

    write("members", (INSERT, member(1)), (INSERT, member(2, b"\x02")), (INSERT, member(2)))
    write("an unknown profile", (INSERT, p4.Entity(
        action_profile_member=p4.ActionProfileMember(action_profile_id=5, member_id=1))))
    write("modify a member", (MODIFY, member(1, b"\x03")))
    write("modify an unknown member", (MODIFY, member(9)))
    refused = {
        11: ("an unknown member", [(1, 1), (9, 1)]),
        12: ("a weight of 0", [(1, 0)]),
        13: ("too much weight", [(1, 9)]),
        14: ("a member twice", [(1, 1), (1, 1)]),
    }
    for number, (what, members) in refused.items():
        write(f"a group with {what}", (INSERT, group(number, members)))
    for number, (what, _) in refused.items():
        write(f"delete the group with {what}", (DELETE, group(number, [])))
    write("a group", (INSERT, group(1, [(1, 1), (2, 3)])))
    write("the group again", (INSERT, group(1, [(1, 1)])))
    write("another max_size", (MODIFY, group(1, [(1, 1)], max_size=9)))
    write("a smaller group", (MODIFY, group(1, [(2, 2)])))
    write("an unknown group in a table", (INSERT, indirect(b"\x07", action_profile_group_id=9)))
    write("a group in a table", (INSERT, indirect(b"\x07", action_profile_group_id=1)))
    write("a member in a table", (INSERT, indirect(b"\x08", action_profile_member_id=1)))
    read("read members", p4.Entity(action_profile_member=p4.ActionProfileMember()))
    read("read groups", p4.Entity(action_profile_group=p4.ActionProfileGroup()))
    read("read ecmp with groups", table("ecmp"))
    write("delete a used member", (DELETE, member(1)))
    write("delete a member of a group", (DELETE, member(2)))
    write("delete a used group", (DELETE, group(1, [])))

    def one_shot(key, *weights):
        entity = table("ecmp", exact(key))
        actions = entity.table_entry.action.action_profile_action_set
        for weight in weights:
            action = actions.action_profile_actions.add()
            action.weight = weight
            call(action.action, "send", bytes([max(weight, 1)]), b"\x01")
        return entity

    write("one shot beside groups", (INSERT, one_shot(b"\x09", 1)))
    write("entries away", (DELETE, indirect(b"\x07")), (DELETE, indirect(b"\x08")))
    write("groups away", (DELETE, group(1, [])))
    write("members away", (DELETE, member(1)), (DELETE, member(2)))
    write("one shot", (INSERT, one_shot(b"\x09", 1, 2)))
    write("one shot without a weight", (INSERT, one_shot(b"\x0a", 0)))
    write("an empty one shot", (INSERT, one_shot(b"\x0a")))
    write("a member beside one shot", (INSERT, member(1)))
    read("read one shot", table("ecmp"))
    write("another one shot", (MODIFY, one_shot(b"\x09", 4)))
    read("read the other one shot", table("ecmp"))
    write("one shot away", (DELETE, one_shot(b"\x09", 4)))


def counters_and_meters():
    def counter(index, packets=None):
        entity = p4.Entity()
        entry = entity.counter_entry
        entry.counter_id = IDS["drops"]
        if index is not None:
            entry.index.index = index
        if packets is not None:
            entry.data.packet_count = packets
            entry.data.byte_count = packets * 2
        return entity

    write("set a counter", (MODIFY, counter(2, 5)))
    write("insert a counter", (INSERT, counter(2, 5)))
    write("a counter too far", (MODIFY, counter(99, 5)))
    write("a counter before the first", (MODIFY, counter(-1, 5)))
    write("all counters", (MODIFY, counter(None, 5)))
    read("read counters", counter(None))
    read("read a counter", counter(2))
    read("read a counter too far", counter(99))
    read("read every counter", p4.Entity(counter_entry=p4.CounterEntry()))
    write("delete a counter", (DELETE, counter(2)))
    read("read the deleted counter", counter(2))

    write("a flow to count", (INSERT, flow()))

    def direct(sport, packets=None):
        entity = p4.Entity()
        entry = entity.direct_counter_entry
        entry.table_entry.CopyFrom(flow(sport=sport).table_entry)
        entry.table_entry.ClearField("action")
        if packets is not None:
            entry.data.packet_count = packets
        return entity

    write("set a direct counter", (MODIFY, direct(b"\x03\xe8", 6)))
    write("set a direct counter of nothing", (MODIFY, direct(b"\x77\x77", 6)))
    read("read a direct counter", direct(b"\x03\xe8"))
    read("read a direct counter of nothing", direct(b"\x77\x77"))
    all_direct = p4.Entity()
    all_direct.direct_counter_entry.table_entry.table_id = IDS["flow"]
    read("read all direct counters", all_direct)
    write("the flow away", (DELETE, flow()))

    def metered(cir=None, pir=4):
        entity = p4.Entity()
        entry = entity.direct_meter_entry
        entry.table_entry.CopyFrom(
            table("acl", None, ternary(A, b"\xff\xff\xff\xff"), priority=7).table_entry
        )
        if cir is not None:
            config = entry.config
            config.cir, config.cburst, config.pir, config.pburst = cir, 2, pir, 4
        return entity

    read("read a meter at its default", metered())
    write("configure a meter", (MODIFY, metered(2)))
    read("read a meter", metered())
    write("cir above pir", (MODIFY, metered(9)))
    write("a negative rate", (MODIFY, metered(-2)))
    write("reset a meter", (MODIFY, metered()))
    read("read the reset meter", metered())
    every = p4.Entity()
    every.direct_meter_entry.table_entry.table_id = IDS["acl"]
    read("read all meters of a table", every)
    register = p4.Entity(register_entry=p4.RegisterEntry(register_id=1))
    write("a register", (MODIFY, register))
    read("read a register", register)
    write("a value set", (MODIFY, p4.Entity(value_set_entry=p4.ValueSetEntry(value_set_id=1))))
    write("an unknown digest", (INSERT, p4.Entity(digest_entry=p4.DigestEntry(digest_id=1))))
    read("read an unknown digest", p4.Entity(digest_entry=p4.DigestEntry(digest_id=1)))


def replication():
    def group(number, *replicas, **fields):
        entity = p4.Entity()
        entry = entity.packet_replication_engine_entry.multicast_group_entry
        entry.multicast_group_id = number
        for port, instance in replicas:
            one = entry.replicas.add()
            one.egress_port, one.instance = port, instance
        for field, value in fields.items():
            setattr(entry, field, value)
        return entity

    def session(number, *replicas, **fields):
        entity = p4.Entity()
        entry = entity.packet_replication_engine_entry.clone_session_entry
        entry.session_id = number
        for port, instance in replicas:
            one = entry.replicas.add()
            one.egress_port, one.instance = port, instance
        for field, value in fields.items():
            setattr(entry, field, value)
        return entity

    write("a group", (INSERT, group(3, (1, 1), (2, 5))))
    write("the group again", (INSERT, group(3, (1, 1))))
    write("group 0", (INSERT, group(0, (1, 1))))
    write("a group too far", (INSERT, group(70_000, (1, 1))))
    write("a replica twice", (INSERT, group(4, (1, 1), (1, 1))))
    write("modify a group", (MODIFY, group(3, (2, 5))))
    write("modify an unknown group", (MODIFY, group(9, (2, 5))))
    read("read a group", group(3))
    read("read an unknown group", group(9))
    read("read all groups", group(0))
    write("a session that truncates", (INSERT, session(5, (1, 1), packet_length_bytes=60)))
    write("a session", (INSERT, session(5, (1, 1))))
    write("the session again", (INSERT, session(5, (1, 1))))
    write("session 0", (INSERT, session(0, (1, 1))))
    write("a session too far", (INSERT, session(40_000, (1, 1))))
    write("a session with a class", (INSERT, session(6, (1, 1), class_of_service=1)))
    read("read a session", session(5))
    read("read an unknown session", session(9))
    read("read all sessions", session(0))
    write("the session away", (DELETE, session(5)))
    write("an unknown session away", (DELETE, session(5)))
    write("the group away", (DELETE, group(3)))


def packets(stream):
    """What is sent out of the CPU port comes back in."""
    request = p4.StreamMessageRequest()
    request.packet.payload = bytes([0, 3]) + bytes(range(60))
    for number, value in ((1, b"\x01\xfe"), (2, b"\0")):
        metadata = request.packet.metadata.add()
        metadata.metadata_id, metadata.value = number, value
    stream.outgoing.put(request)
    say("a packet that comes back", stream.next())


without_pipeline()
primary = arbitration()
bad_entries()
tables()
full_table()
profiles()
counters_and_meters()
replication()
packets(primary)
set_pipeline("a broken pipeline", 3, blob=b"{ not JSON")
primary.close()
