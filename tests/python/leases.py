#!/usr/bin/env python3
"""Asks a krb-broker what it serves and who holds what, with a stock gRPC client.

Nothing here is generated from the project's .proto files: everything about its messages is learnt from
the server's reflection service, as grpcurl learns it. So it fails when reflection is wrong or incomplete.

    leases.py --address HOST:PORT --ca ca.pem --cert op.pem --key op.key --server-name NAME list
    leases.py ... list --node n1 --state active
    leases.py ... services
    leases.py ... call krb.broker.v1.StatusService/GetStatus '{}'

A failed call ends with exit code 2 and one line on standard error, `CODE REASON: message`; a request that
can't be made, with exit code 1 and one line.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the C core's own log; read when it is loaded

import grpc
from google.protobuf import json_format

from broker_client import Broker, CallFailed

LEASES = "krb.broker.v1.LeaseService"
COLUMNS = ("LEASE", "STATE", "NODE", "POD", "ACCOUNT", "KEYTAB", "TICKETS", "EXPOSED UNTIL")


def main():
    """Runs the command; answers the exit code."""
    arguments = parse_arguments()
    broker = Broker(connect(arguments), arguments.timeout)
    try:
        arguments.run(broker, arguments)
    except CallFailed as failure:
        print(failure, file=sys.stderr)
        return 2
    except (LookupError, ValueError, json_format.ParseError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="HOST:PORT of the broker")
    parser.add_argument("--ca", required=True, help="PEM file of the CA that signed the broker's certificate")
    parser.add_argument("--cert", help="PEM file of our certificate; without one the broker should refuse us")
    parser.add_argument("--key", help="PEM file of its key")
    parser.add_argument("--server-name", required=True, help="the name that the broker's certificate must carry")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds that one call may take")
    commands = parser.add_subparsers(required=True)

    services = commands.add_parser("services", help="print what reflection says is served")
    services.set_defaults(run=run_services)

    listing = commands.add_parser("list", help="print the services, then the leases as a table")
    listing.add_argument("--node", default="")
    listing.add_argument("--namespace", default="")
    listing.add_argument("--pod", default="")
    listing.add_argument("--principal", default="")
    listing.add_argument("--state", action="append", default=[], help="pending, active, released ... (may be repeated)")
    listing.add_argument("--columns", type=columns, default=COLUMNS, help="which, such as state,node,exposed-until")
    listing.set_defaults(run=run_list)

    call = commands.add_parser("call", help="make any unary call with a request in JSON")
    call.add_argument("method", help="SERVICE/METHOD")
    call.add_argument("request", nargs="?", default="{}", help="the request in protobuf's JSON form")
    call.set_defaults(run=run_call)
    return parser.parse_args()


def columns(text):
    """The columns that are named in a comma-separated list."""
    chosen = tuple(name.strip().upper().replace("-", " ") for name in text.split(","))
    for name in chosen:
        if name not in COLUMNS:
            raise argparse.ArgumentTypeError(f"no column {name}; there are {', '.join(COLUMNS)}")
    return chosen


def connect(arguments):
    """A mutual-TLS channel to the broker. Its name is checked against `--server-name`."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(arguments.ca),
        private_key=read(arguments.key),
        certificate_chain=read(arguments.cert),
    )
    options = [("grpc.ssl_target_name_override", arguments.server_name), ("grpc.enable_http_proxy", 0)]
    return grpc.secure_channel(arguments.address, credentials, options)


def read(path):
    """The bytes of a file, or None where no file was named."""
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def run_services(broker, _arguments):
    """Lists the services by both versions of reflection, and the methods of ours."""
    for version in ("v1", "v1alpha"):
        print(f"services (reflection {version}): {' '.join(broker.services(version))}")
    for service in broker.services("v1"):
        if service.startswith("krb."):
            for method in broker.methods(service):
                print(f"  {service}/{method}")


def run_list(broker, arguments):
    """Lists the services, then every lease that matches."""
    run_services(broker, arguments)
    request = {
        "node": arguments.node,
        "namespace": arguments.namespace,
        "podName": arguments.pod,
        "principal": arguments.principal,
        "states": [f"LEASE_STATE_{state.upper()}" for state in arguments.state],
    }
    rows = [row(lease) for lease in every_lease(broker, request)]
    print()
    print_table(rows, arguments.columns)
    print(f"{len(rows)} lease{'' if len(rows) == 1 else 's'}")


def every_lease(broker, request):
    """All pages of ListLeases, one lease after the other."""
    token = ""
    while True:
        page = broker.call(LEASES, "ListLeases", dict(request, pageToken=token))
        yield from page.leases
        token = page.next_page_token
        if not token:
            return


def row(lease):
    """One line of the table."""
    state = type(lease).DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[lease.state].name
    keytab = [f"{keys.principal}:{','.join(map(str, keys.kvnos))}" for keys in lease.keytab]
    return (
        lease.lease_id,
        state.removeprefix("LEASE_STATE_").lower() + (f" ({lease.reason})" if lease.reason else ""),
        lease.node.name,
        f"{lease.pod.namespace}/{lease.pod.name}",
        lease.account,
        " ".join(keytab) or "-",
        " ".join(lease.tickets) or "-",
        exposure(lease),
    )


def exposure(lease):
    """Until when what the lease handed out can be misused, in words."""
    if lease.exposure.open:
        return "open"
    if lease.exposure.HasField("exposed_until"):
        return lease.exposure.exposed_until.ToJsonString()
    return "-"


def print_table(rows, chosen):
    """Prints the chosen columns of rows, each as wide as its longest cell."""
    places = [COLUMNS.index(name) for name in chosen]
    lines = [[line[place] for place in places] for line in [COLUMNS, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(places))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def run_call(broker, arguments):
    """Makes one call and prints the reply as JSON."""
    service, _, method = arguments.method.rpartition("/")
    reply = broker.call(service, method, json.loads(arguments.request))
    print(json_format.MessageToJson(reply, descriptor_pool=broker.pool))


if __name__ == "__main__":
    sys.exit(main())
