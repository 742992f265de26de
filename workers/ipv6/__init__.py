"""IPv6 of one session, beside IPv6CP: router advertisements and a DHCPv6 server.

No socket, no clock, no entropy: packets and times come in, packets go out.
"""
