"""How a client's candidates are told to its peers: through the portal, with one message for each kind of peer."""

from wardgate.ids import ClientId, GatewayId
from wardgate.tunnel.candidates import CandidateBatch
from wardgate.wire import portal


def candidate_messages(batch: CandidateBatch, *, is_client: bool) -> list[portal.Message]:
    """What to tell the portal of one peer's batch: what is gone first."""
    messages: list[portal.Message] = []
    if is_client:
        client_id = ClientId(batch.peer_id)
        if batch.removed:
            messages.append(portal.WithdrawnPeerCandidates(client_id=client_id, candidates=batch.removed))
        if batch.added:
            messages.append(portal.NewPeerCandidates(client_id=client_id, candidates=batch.added))
    else:
        gateway_id = GatewayId(batch.peer_id)
        if batch.removed:
            messages.append(portal.WithdrawnGatewayCandidates(gateway_id=gateway_id, candidates=batch.removed))
        if batch.added:
            messages.append(portal.NewGatewayCandidates(gateway_id=gateway_id, candidates=batch.added))
    return messages
