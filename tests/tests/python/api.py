"""The daemon's API by a client that is generated from its proto: messages, streams, errors.

Arguments: the folder of the proto's package, a folder for what is generated, the API's socket.
"""

import json
import subprocess
import sys

import grpc

proto, generated, socket = sys.argv[1:]
subprocess.run(
    [
        sys.executable, "-m", "grpc_tools.protoc", "-I", proto,
        f"--python_out={generated}", f"--grpc_python_out={generated}",
        "shunt/v1/shunt.proto",
    ],
    check=True,
)
sys.path.insert(0, generated)
from shunt.v1 import shunt_pb2 as pb  # noqa: E402
from shunt.v1 import shunt_pb2_grpc as rpc  # noqa: E402

# grpc's own choice of an authority, the socket's path, is none by RFC 3986.
options = [("grpc.default_authority", "localhost")]
daemon = rpc.ShuntStub(grpc.insecure_channel(f"unix:{socket}", options=options))
PATIENCE = 20


def refused(code, call, request):
    """The call's error, which has to be of that code."""
    try:
        call(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error.details()
    raise AssertionError(f"{request} was not refused")


status = daemon.GetStatus(pb.GetStatusRequest(), timeout=PATIENCE)
assert status.version and status.switch.name == "sw1", status
vpcs = daemon.ListVpcs(pb.ListVpcsRequest(), timeout=PATIENCE).vpcs
assert {"red", "blue", "green", "wan"} <= {vpc.name for vpc in vpcs}, vpcs
routes = list(daemon.ListRoutes(pb.ListRoutesRequest(vpc="red"), timeout=PATIENCE))
assert any(route.prefix == "10.0.0.0/24" for route in routes), routes
said = refused(grpc.StatusCode.NOT_FOUND, lambda r, timeout: list(daemon.ListRoutes(r, timeout=timeout)),
               pb.ListRoutesRequest(vpc="redd"))
assert "known:" in said, said
assert list(daemon.ListFlows(pb.ListFlowsRequest(), timeout=PATIENCE)) == []
refused(grpc.StatusCode.INVALID_ARGUMENT, daemon.DeleteFlows, pb.DeleteFlowsRequest())
refused(grpc.StatusCode.INVALID_ARGUMENT, daemon.SetLogLevel, pb.SetLogLevelRequest(level="a=b=c"))

shown = daemon.GetConfig(pb.GetConfigRequest(), timeout=PATIENCE)
assert shown.newest == 1 and json.loads(shown.json)["vpc"][0]["name"] == "red", shown
edit = pb.ConfigSet(path="vpc.red.weight", value="7")
made = daemon.ChangeConfig(
    pb.ChangeConfigRequest(base=1, comment="from Python", set=edit), timeout=PATIENCE
)
assert made.revision == 2 and made.changes[0].path == "vpc.red.weight", made
told = list(daemon.WaitConfig(pb.WaitConfigRequest(revision=2), timeout=40))
assert told[-1].converged, told
said = refused(grpc.StatusCode.ABORTED, daemon.ChangeConfig,
               pb.ChangeConfigRequest(base=1, set=edit))
assert "revision 2 by" in said, said
for request in [
    pb.ChangeConfigRequest(base=2),
    pb.ChangeConfigRequest(set=edit),
    pb.ChangeConfigRequest(base=2, document="[[vpc]]\nname = 5"),
    pb.ChangeConfigRequest(base=2, set=pb.ConfigSet(path="vpc.red.weight", value="heavy")),
    pb.ChangeConfigRequest(base=2, set=pb.ConfigSet(path="vpc.nowhere.weight", value="1")),
    pb.ChangeConfigRequest(base=2, set=pb.ConfigSet()),
    pb.ChangeConfigRequest(base=2, comment="x" * 5000, set=pb.ConfigSet(path="vpc.red.weight", value="8")),
]:
    refused(grpc.StatusCode.INVALID_ARGUMENT, daemon.ChangeConfig, request)
said = refused(grpc.StatusCode.FAILED_PRECONDITION, daemon.ChangeConfig,
               pb.ChangeConfigRequest(base=2, remove=pb.ConfigRemove(path="vpc.red")))
assert "interface.red.vpc" in said, said
refused(grpc.StatusCode.NOT_FOUND, daemon.ChangeConfig, pb.ChangeConfigRequest(base=2, rewind=9))
refused(grpc.StatusCode.NOT_FOUND, daemon.GetConfig, pb.GetConfigRequest(revision=9))
log = list(daemon.ListConfigLog(pb.ListConfigLogRequest(), timeout=PATIENCE))
assert [one.number for one in log] == [2, 1] and log[0].comment == "from Python", log
print("every call answered as it should")
