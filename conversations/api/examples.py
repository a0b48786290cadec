"""Sample values that OpenAPI shows."""

CONVERSATION = {
    "conversationId": "97847",
    "channelId": "3",
    "inboundChannelAddress": "WhatsApp QA Test",
    "outboundChannelAddress": "447717472695",
    "customerUID": "BW-10023",
    "state": "open",
    "handledBy": "people",
    "queueId": "7",
    "statusId": None,
    "assignedToId": None,
    "fields": {"amount": "150.50"},
    "createdAt": "2026-01-31T09:00:00.000Z",
    "updatedAt": "2026-01-31T09:05:00.000Z",
}
START = {
    "channelId": "3",
    "outboundChannelAddress": "+44 7717 472695",
    "customerUID": "BW-10023",
    "body": "Your bill is ready.",
    "queueId": "7",
    "fields": {"amount": "150.50"},
}
MESSAGE = {
    "communicationActionId": "220860",
    "conversationId": "97847",
    "direction": "outbound",
    "body": "Your bill is ready.",
    "state": "sent",
    "statusCode": "1",
    "sentBy": "api",
    "createdAt": "2026-01-31T09:05:00.000Z",
}
CHANNEL = {
    "id": "3",
    "type": "sandbox",
    "label": "WhatsApp QA Test",
    "address": "",
    "inboundRule": "new",
    "validityHours": 24,
}
QUEUE = {"id": "7", "name": "Billing", "active": True}
STATUS = {"id": "12", "name": "Promise to pay"}
CONTACT = {"id": "51", "address": "447717472695", "customerUID": "BW-10023", "name": "Aoife Kelly"}
