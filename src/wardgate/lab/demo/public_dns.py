"""The public resolver of the demo: one name exists, and every name it is asked for is logged.

So the story can show which names never left the client.

Run as `python -m wardgate.lab.demo.public_dns ADDRESS`.
"""

import socket
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

PUBLIC_NAME = "www.public.example."
PUBLIC_ADDRESS = "203.0.113.80"


def answer(query: bytes) -> tuple[str, bytes]:
    """The name that was asked, and the reply.

    Raises:
        dns.exception.DNSException: The query is no DNS message.
    """
    asked = dns.message.from_wire(query)
    question = asked.question[0]
    reply = dns.message.make_response(asked)
    reply.flags |= dns.flags.RA
    name = question.name.to_text().lower()
    if name != PUBLIC_NAME:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == 1:
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", PUBLIC_ADDRESS))
    return name, reply.to_wire()


def main() -> None:
    """Serves UDP port 53 until it is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((sys.argv[1], 53))
        print("listening", flush=True)
        while True:
            query, source = server.recvfrom(4096)
            try:
                name, reply = answer(query)
            except Exception as error:
                print(f"ignored a message: {error}", flush=True)
                continue
            print(f"asked for {name}", flush=True)
            server.sendto(reply, source)


if __name__ == "__main__":
    main()
